#include "stage_runtime/data/derived_dataset.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/log.h"
#include "core/random.h"

namespace ecopipe {
namespace {

class Subset : public Dataset {
  public:
    Subset(std::shared_ptr<const Dataset> whole, std::vector<std::int64_t> indices)
        : whole_(std::move(whole)), indices_(std::move(indices)) {}
    std::int64_t size() const override { return static_cast<std::int64_t>(indices_.size()); }
    Shape sample_shape() const override { return whole_->sample_shape(); }
    Shape target_shape() const override { return whole_->target_shape(); }
    std::vector<std::string> input_names() const override { return whole_->input_names(); }
    int num_classes() const override { return whole_->num_classes(); }
    std::vector<std::string> class_names() const override { return whole_->class_names(); }
    std::int64_t label(std::int64_t index) const override { return whole_->label(at(index)); }
    Result<Batch> batch(std::span<const std::int64_t> indices) const override {
        std::vector<std::int64_t> there;
        for (const std::int64_t index : indices) there.push_back(at(index));
        return whole_->batch(there);
    }

  private:
    [[nodiscard]] std::int64_t at(std::int64_t index) const {
        return indices_.at(static_cast<std::size_t>(index));
    }
    std::shared_ptr<const Dataset> whole_;
    std::vector<std::int64_t> indices_;
};

class Normalized : public Dataset {
  public:
    Normalized(std::unique_ptr<Dataset> data, const Normalization& normalize)
        : data_(std::move(data)), normalize_(normalize) {}
    std::int64_t size() const override { return data_->size(); }
    Shape sample_shape() const override { return data_->sample_shape(); }
    Shape target_shape() const override { return data_->target_shape(); }
    std::vector<std::string> input_names() const override { return data_->input_names(); }
    int num_classes() const override { return data_->num_classes(); }
    std::vector<std::string> class_names() const override { return data_->class_names(); }
    std::int64_t label(std::int64_t index) const override { return data_->label(index); }
    Result<Batch> batch(std::span<const std::int64_t> indices) const override {
        ECOPIPE_ASSIGN_OR_RETURN(Batch out, data_->batch(indices));
        const auto channels = static_cast<std::size_t>(sample_shape()[0]);
        const std::size_t plane = out.inputs.as<float>().size() / (channels * indices.size());
        float* value = out.inputs.as<float>().data();
        for (std::size_t n = 0; n < indices.size(); ++n)
            for (std::size_t c = 0; c < channels; ++c) {
                const float mean = normalize_.mean[normalize_.mean.size() == 1 ? 0 : c];
                const float deviation =
                    normalize_.deviation[normalize_.deviation.size() == 1 ? 0 : c];
                for (std::size_t i = 0; i < plane; ++i, ++value)
                    *value = (*value - mean) / deviation;
            }
        return out;
    }

  private:
    std::unique_ptr<Dataset> data_;
    Normalization normalize_;
};

// Labels of another list of classes.
class Relabelled : public Dataset {
  public:
    Relabelled(std::unique_ptr<Dataset> data, std::vector<std::int64_t> to,
               std::vector<std::string> classes)
        : data_(std::move(data)), to_(std::move(to)), classes_(std::move(classes)) {}
    std::int64_t size() const override { return data_->size(); }
    Shape sample_shape() const override { return data_->sample_shape(); }
    Shape target_shape() const override { return data_->target_shape(); }
    std::vector<std::string> input_names() const override { return data_->input_names(); }
    int num_classes() const override { return static_cast<int>(classes_.size()); }
    std::vector<std::string> class_names() const override { return classes_; }
    std::int64_t label(std::int64_t index) const override { return mapped(data_->label(index)); }
    Result<Batch> batch(std::span<const std::int64_t> indices) const override {
        ECOPIPE_ASSIGN_OR_RETURN(Batch out, data_->batch(indices));
        for (std::int64_t& label : out.labels.as<std::int64_t>()) label = mapped(label);
        return out;
    }

  private:
    // What is no class, as a label that is to be ignored, stays what it is.
    [[nodiscard]] std::int64_t mapped(std::int64_t label) const {
        const bool known = label >= 0 && label < static_cast<std::int64_t>(to_.size());
        return known ? to_[static_cast<std::size_t>(label)] : label;
    }
    std::unique_ptr<Dataset> data_;
    std::vector<std::int64_t> to_;
    std::vector<std::string> classes_;
};

}  // namespace

Result<std::unique_ptr<Dataset>> with_classes(std::unique_ptr<Dataset> data,
                                              const std::vector<std::string>& classes,
                                              const std::string& flag) {
    const std::vector<std::string> own = data->class_names();
    if (classes.empty() || own == classes) return data;
    if (own.empty()) {
        if (data->num_classes() <= static_cast<int>(classes.size())) return data;
        return fail(ExitCode::kUsage,
                    fmt::format("{}: expected at most the {} classes of the list, found {}", flag,
                                classes.size(), data->num_classes()));
    }
    std::vector<std::int64_t> to;
    for (const std::string& name : own) {
        const auto found = std::find(classes.begin(), classes.end(), name);
        if (found == classes.end())
            return fail(ExitCode::kUsage,
                        fmt::format("{}: its class {} is not among the federation's: {}", flag,
                                    printable(name),
                                    printable(fmt::format("{}", fmt::join(classes, ", ")))));
        to.push_back(found - classes.begin());
    }
    return std::make_unique<Relabelled>(std::move(data), std::move(to), classes);
}

std::unique_ptr<Dataset> make_subset(std::shared_ptr<const Dataset> whole,
                                     std::vector<std::int64_t> indices) {
    return std::make_unique<Subset>(std::move(whole), std::move(indices));
}

Result<std::unique_ptr<Dataset>> select_samples(std::unique_ptr<Dataset> data,
                                                const DataOptions& options, bool limited) {
    const std::int64_t most = limited && options.limit > 0 ? options.limit : data->size();
    if (options.classes.empty() && most >= data->size()) return data;
    if (!options.classes.empty() && (data->num_classes() == 0 || !data->target_shape().empty()))
        return fail(ExitCode::kUsage,
                    "--classes: expected data whose samples have a class each, found others");
    for (const int wanted : options.classes)
        if (wanted < 0 || wanted >= data->num_classes())
            return fail(ExitCode::kUsage,
                        fmt::format("--classes: expected labels from 0 to {}, found {}",
                                    data->num_classes() - 1, wanted));
    std::vector<std::int64_t> kept;
    for (std::int64_t i = 0; i < data->size() && static_cast<std::int64_t>(kept.size()) < most;
         ++i) {
        const bool wanted =
            options.classes.empty() || std::find(options.classes.begin(), options.classes.end(),
                                                 data->label(i)) != options.classes.end();
        if (wanted) kept.push_back(i);
    }
    if (kept.empty())
        return fail(ExitCode::kUsage, "--data: no sample is left to train or test on");
    return make_subset(std::move(data), std::move(kept));
}

Result<void> split_validation(DataSplits& splits, const DataOptions& options) {
    if (options.validation_fraction <= 0) return {};
    if (splits.validation)
        return fail(ExitCode::kUsage,
                    "--validation-fraction: the data have a validation split of their own");
    const std::int64_t samples = splits.train->size();
    const auto held = std::llround(static_cast<double>(samples) * options.validation_fraction);
    if (held < 1 || held >= samples)
        return fail(ExitCode::kUsage,
                    fmt::format("--validation-fraction: {} of {} training samples leaves none {}",
                                options.validation_fraction, samples,
                                held < 1 ? "to validate on" : "to train on"));
    std::vector<std::int64_t> order(static_cast<std::size_t>(samples));
    std::iota(order.begin(), order.end(), 0);
    Rng rng(keyed_seed(options.seed, "validation split"));
    rng.shuffle(order);
    const auto middle = order.begin() + held;
    std::sort(order.begin(), middle);
    std::sort(middle, order.end());
    const std::shared_ptr<const Dataset> whole = std::move(splits.train);
    splits.validation = make_subset(whole, {order.begin(), middle});
    splits.train = make_subset(whole, {middle, order.end()});
    return {};
}

Result<std::unique_ptr<Dataset>> make_normalized(std::unique_ptr<Dataset> data,
                                                 const Normalization& normalize) {
    const std::int64_t first = 0;
    ECOPIPE_ASSIGN_OR_RETURN(const Batch sample, data->batch({&first, 1}));
    if (sample.inputs.dtype() != DType::kF32)
        return fail(ExitCode::kUsage,
                    fmt::format("--normalize: expected inputs that are numbers, found {}",
                                dtype_name(sample.inputs.dtype())));
    const std::size_t channels = static_cast<std::size_t>(data->sample_shape().at(0));
    for (const std::vector<float>* list : {&normalize.mean, &normalize.deviation})
        if (list->size() != 1 && list->size() != channels)
            return fail(ExitCode::kUsage,
                        fmt::format("--normalize: expected 1 or {} values, as the data have "
                                    "channels, found {}",
                                    channels, list->size()));
    return std::make_unique<Normalized>(std::move(data), normalize);
}

}  // namespace ecopipe
