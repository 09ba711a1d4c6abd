#include "stage_runtime/data/model_inputs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

namespace ecopipe {
namespace {

class ReorderedInputs : public Dataset {
  public:
    ReorderedInputs(std::unique_ptr<Dataset> data, std::vector<std::size_t> from, Shape shape)
        : data_(std::move(data)), from_(std::move(from)), shape_(std::move(shape)) {}
    std::int64_t size() const override { return data_->size(); }
    Shape sample_shape() const override { return shape_; }
    Shape target_shape() const override { return data_->target_shape(); }
    int num_classes() const override { return data_->num_classes(); }
    std::vector<std::string> input_names() const override {
        std::vector<std::string> names;
        for (const std::size_t at : from_) names.push_back(data_->input_names()[at]);
        return names;
    }
    std::vector<std::string> class_names() const override { return data_->class_names(); }
    std::int64_t label(std::int64_t index) const override { return data_->label(index); }
    Result<Batch> batch(std::span<const std::int64_t> indices) const override {
        ECOPIPE_ASSIGN_OR_RETURN(Batch out, data_->batch(indices));
        const std::vector<HostTensor> all = out.all_inputs();
        out.inputs = all[from_[0]];
        out.more_inputs.clear();
        for (std::size_t i = 1; i < from_.size(); ++i) out.more_inputs.push_back(all[from_[i]]);
        return out;
    }

  private:
    std::unique_ptr<Dataset> data_;
    std::vector<std::size_t> from_;
    Shape shape_;
};

std::string list_of(const std::vector<std::string>& names) {
    return names.empty() ? "one input without a name"
                         : fmt::format("inputs {}", fmt::join(names, ", "));
}

Result<void> fit_split(std::unique_ptr<Dataset>& split, const std::vector<ModelInput>& wanted) {
    const std::vector<std::string> there = split->input_names();
    std::vector<std::string> names;
    for (const ModelInput& input : wanted) names.push_back(input.name);
    const std::size_t count = std::max<std::size_t>(1, there.size());
    if (count != std::max<std::size_t>(1, wanted.size()))
        return fail(ExitCode::kUsage, fmt::format("--data: expected {}, as the model takes them, "
                                                  "found {}",
                                                  list_of(names), list_of(there)));
    std::vector<std::size_t> from{0};
    if (wanted.size() > 1) {
        from.clear();
        for (const std::string& name : names) {
            const auto found = std::find(there.begin(), there.end(), name);
            if (found == there.end())
                return fail(ExitCode::kUsage,
                            fmt::format("--data: expected {}, as the model takes them, found {}",
                                        list_of(names), list_of(there)));
            from.push_back(static_cast<std::size_t>(found - there.begin()));
        }
    }
    ECOPIPE_ASSIGN_OR_RETURN(const Batch sample, first_samples(*split, 1));
    const std::vector<HostTensor> all = sample.all_inputs();
    Shape first;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        const HostTensor& tensor = all[from[i]];
        const Shape shape(tensor.shape().begin() + 1, tensor.shape().end());
        if (i == 0) first = shape;
        if (shape != wanted[i].shape || tensor.dtype() != wanted[i].dtype)
            return fail(ExitCode::kUsage,
                        fmt::format("--data: the model takes {} {} a sample as {}, the data have "
                                    "{} {}",
                                    dtype_name(wanted[i].dtype), shape_text(wanted[i].shape),
                                    wanted[i].name, dtype_name(tensor.dtype()), shape_text(shape)));
    }
    if (wanted.size() > 1)
        split =
            std::make_unique<ReorderedInputs>(std::move(split), std::move(from), std::move(first));
    return {};
}

}  // namespace

Result<void> fit_inputs(DataSplits& data, const std::vector<ModelInput>& wanted) {
    for (auto* split : {&data.train, &data.validation, &data.test})
        if (*split) ECOPIPE_RETURN_IF_ERROR(fit_split(*split, wanted));
    return {};
}

}  // namespace ecopipe
