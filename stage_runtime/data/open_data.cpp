#include "stage_runtime/data/open_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "core/log.h"
#include "core/random.h"
#include "stage_runtime/data/derived_dataset.h"
#include "stage_runtime/data/folder.h"
#include "stage_runtime/data/image_dataset.h"
#include "stage_runtime/data/tensors.h"

namespace ecopipe {
namespace {

// Where the Debian package dataset-fashion-mnist puts its files.
constexpr const char* kFashionMnist = "/usr/share/datasets/fashion-mnist";

struct Source {
    std::string format;
    std::string rest;  // after the colon
};

Source source_of(const std::string& spec) {
    const std::size_t colon = spec.find(':');
    if (colon == std::string::npos) return {spec, ""};
    return {spec.substr(0, colon), spec.substr(colon + 1)};
}

Result<Images> read_images(const std::string& spec, bool train) {
    const auto [format, rest] = source_of(spec);
    if (spec == "fashion-mnist") {
        auto images = read_idx(kFashionMnist, train);
        if (!images) images.error().message += " (apt install dataset-fashion-mnist)";
        return images;
    }
    if (!rest.empty() && format == "idx") return read_idx(rest, train);
    if (!rest.empty() && format == "cifar10") return read_cifar10(rest, train);
    if (!rest.empty() && format == "synthetic") return make_synthetic(rest, train);
    return fail(ExitCode::kUsage,
                fmt::format("--data: expected fashion-mnist, idx:DIR, cifar10:DIR, folder:DIR, "
                            "tensors:DIR or synthetic:CxHxW:CLASSES:COUNT, found '{}'",
                            printable(spec)));
}

Result<std::unique_ptr<Dataset>> normalized(std::unique_ptr<Dataset> data,
                                            const DataOptions& options) {
    if (!data || !options.normalize.given()) return data;
    return make_normalized(std::move(data), options.normalize);
}

// The splits of a format that comes in several, each with what is asked for of its samples.
Result<DataSplits> selected(DataSplits splits, const DataOptions& options) {
    for (auto* split : {&splits.train, &splits.validation, &splits.test}) {
        if (!*split) continue;
        ECOPIPE_ASSIGN_OR_RETURN(
            *split, select_samples(std::move(*split), options, split == &splits.train));
    }
    return splits;
}

Result<DataSplits> open_splits(const std::string& spec, const DataOptions& options) {
    const auto [format, rest] = source_of(spec);
    if (format == "folder" && !rest.empty()) {
        ECOPIPE_ASSIGN_OR_RETURN(DataSplits splits, open_folder(rest, options));
        return selected(std::move(splits), options);
    }
    if (options.height > 0) return fail(ExitCode::kUsage, "--resize goes with --data folder:DIR");
    if (format == "tensors" && !rest.empty()) {
        ECOPIPE_ASSIGN_OR_RETURN(DataSplits splits, open_tensors(rest, options.ignored_class));
        return selected(std::move(splits), options);
    }
    ECOPIPE_ASSIGN_OR_RETURN(Images train, read_images(spec, true));
    ECOPIPE_ASSIGN_OR_RETURN(Images test, read_images(spec, false));
    if (train.shape != test.shape)
        return fail(ExitCode::kBadFile,
                    fmt::format("--data {}: training images are {}, test images {}", spec,
                                shape_text(train.shape), shape_text(test.shape)));
    train.num_classes = test.num_classes = std::max(train.num_classes, test.num_classes);
    DataSplits splits;
    ECOPIPE_ASSIGN_OR_RETURN(splits.train, make_image_dataset(std::move(train), options, true));
    ECOPIPE_ASSIGN_OR_RETURN(splits.test, make_image_dataset(std::move(test), options, false));
    return splits;
}

Result<std::vector<float>> parse_floats(const std::string& text) {
    std::vector<float> out;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(',', begin), text.size());
        float value = 0;
        const char* stop = text.data() + end;
        const auto [at, error] = std::from_chars(text.data() + begin, stop, value);
        if (error != std::errc() || at != stop || !std::isfinite(value))
            return fail(ExitCode::kUsage, "");
        out.push_back(value);
        begin = end + 1;
    }
    return out;
}

}  // namespace

Result<std::unique_ptr<Dataset>> open_test_data(const std::string& spec,
                                                const DataOptions& options) {
    const std::string format = source_of(spec).format;
    if (format == "folder" || format == "tensors") {
        ECOPIPE_ASSIGN_OR_RETURN(DataSplits splits, open_splits(spec, options));
        if (!splits.test)
            return fail(ExitCode::kBadFile, fmt::format("--data {}: has no test split", spec));
        return normalized(std::move(splits.test), options);
    }
    ECOPIPE_ASSIGN_OR_RETURN(Images images, read_images(spec, false));
    ECOPIPE_ASSIGN_OR_RETURN(auto test, make_image_dataset(std::move(images), options, false));
    return normalized(std::move(test), options);
}

Result<DataSplits> open_data(const std::string& spec, const DataOptions& options) {
    ECOPIPE_ASSIGN_OR_RETURN(DataSplits splits, open_splits(spec, options));
    ECOPIPE_RETURN_IF_ERROR(split_validation(splits, options));
    for (auto* split : {&splits.train, &splits.validation, &splits.test}) {
        ECOPIPE_ASSIGN_OR_RETURN(*split, normalized(std::move(*split), options));
    }
    return splits;
}

Result<Normalization> parse_normalization(const std::string& text) {
    const std::size_t slash = text.find('/');
    const auto mean = parse_floats(text.substr(0, slash));
    const auto deviation = parse_floats(slash == std::string::npos ? "" : text.substr(slash + 1));
    if (!mean || !deviation ||
        std::any_of(deviation->begin(), deviation->end(), [](float d) { return !(d > 0); }))
        return fail(ExitCode::kUsage,
                    fmt::format("--normalize: expected MEAN[,MEAN...]/STD[,STD...] with STD above "
                                "0, found '{}'",
                                printable(text)));
    return Normalization{*mean, *deviation};
}

std::vector<HostTensor> Batch::all_inputs() const {
    std::vector<HostTensor> all{inputs};
    all.insert(all.end(), more_inputs.begin(), more_inputs.end());
    return all;
}

Result<Batch> first_samples(const Dataset& data, int count) {
    std::vector<std::int64_t> indices;
    for (int i = 0; i < count; ++i) indices.push_back(i % data.size());
    return data.batch(indices);
}

Result<std::vector<std::uint64_t>> class_counts(const Dataset& data, std::int64_t ignored) {
    constexpr std::int64_t kAtOnce = 256;
    std::vector<std::uint64_t> counts(static_cast<std::size_t>(data.num_classes()), 0);
    const auto count = [&](std::int64_t label) {
        if (label != ignored && label >= 0 && label < data.num_classes())
            ++counts[static_cast<std::size_t>(label)];
    };
    if (data.target_shape().empty()) {
        for (std::int64_t i = 0; i < data.size(); ++i) count(data.label(i));
        return counts;
    }
    std::vector<std::int64_t> indices;
    for (std::int64_t begin = 0; begin < data.size(); begin += kAtOnce) {
        indices.resize(static_cast<std::size_t>(std::min(kAtOnce, data.size() - begin)));
        std::iota(indices.begin(), indices.end(), begin);
        ECOPIPE_ASSIGN_OR_RETURN(const Batch batch, data.batch(indices));
        if (batch.labels.dtype() != DType::kI64) return counts;
        for (const std::int64_t label : batch.labels.as<std::int64_t>()) count(label);
    }
    return counts;
}

int outputs_wanted(const Dataset& data, const std::string& loss) {
    if (loss == "cross_entropy") return data.num_classes();
    std::int64_t numbers = 1;
    for (const std::int64_t side : data.target_shape()) numbers *= side;
    return static_cast<int>(numbers);
}

std::vector<std::int64_t> epoch_order(std::int64_t samples, std::uint64_t seed, std::uint64_t epoch,
                                      bool shuffle) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(samples));
    std::iota(order.begin(), order.end(), 0);
    if (shuffle) {
        constexpr std::uint64_t kPurpose = 0xEC0C;  // apart from every other use of the seed
        Rng rng(keyed_seed(seed, {kPurpose, epoch}));
        rng.shuffle(order);
    }
    return order;
}

}  // namespace ecopipe
