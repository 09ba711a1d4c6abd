#pragma once
// Training data as the portal reads it: samples by index, torch-free. One file a format.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/host_tensor.h"
#include "core/result.h"

namespace ecopipe {

struct Batch {
    HostTensor inputs;  // [n, sample shape...], float or integer
    HostTensor labels;  // [n, target shape...]: int64 classes or float numbers
};

// One split. Immutable; any thread may read.
class Dataset {
  public:
    virtual ~Dataset() = default;
    [[nodiscard]] virtual std::int64_t size() const = 0;
    [[nodiscard]] virtual Shape sample_shape() const = 0;
    [[nodiscard]] virtual Shape target_shape() const { return {}; }  // {}: one number a sample
    [[nodiscard]] virtual int num_classes() const = 0;               // 0: the targets are numbers
    // What the classes stand for, in order; empty when the data have no names for them.
    [[nodiscard]] virtual std::vector<std::string> class_names() const { return {}; }
    // The sample's class; -1 when it has not exactly one.
    [[nodiscard]] virtual std::int64_t label(std::int64_t index) const = 0;
    // Errors: kBadFile naming the file of a sample that cannot be read.
    [[nodiscard]] virtual Result<Batch> batch(std::span<const std::int64_t> indices) const = 0;
};

struct DataSplits {
    std::unique_ptr<Dataset> train;
    std::unique_ptr<Dataset> validation;  // null when there is none
    std::unique_ptr<Dataset> test;        // the same
};

// Subtracted and divided by, one value a channel or one for all.
struct Normalization {
    std::vector<float> mean;
    std::vector<float> deviation;
    [[nodiscard]] bool given() const { return !mean.empty(); }
};

struct DataOptions {
    std::vector<int> classes;  // keep only these labels; empty: all
    std::int64_t limit = 0;    // then the first N of the training split; 0: all
    int channels =
        0;           // the model's: a one-channel image is repeated to fill it; 0: as the data are
    int height = 0;  // of images in a folder, resized; 0: as they are
    int width = 0;
    Normalization normalize{};
    double validation_fraction = 0;  // of the training split, drawn by `seed`
    std::uint64_t seed = 0;
    // A target that is no class and does not count; nothing: every integer target is a class.
    std::optional<std::int64_t> ignored_class = -100;
};

// fashion-mnist | idx:DIR | cifar10:DIR | folder:DIR | tensors:DIR | synthetic:CxHxW:CLASSES:COUNT.
// Errors: kUsage for another word or an option that does not go with the data, kBadFile for
// missing, truncated or inconsistent files, naming them.
[[nodiscard]] Result<DataSplits> open_data(const std::string& spec, const DataOptions& options);
// The same for the test split only, to evaluate on.
[[nodiscard]] Result<std::unique_ptr<Dataset>> open_test_data(const std::string& spec,
                                                              const DataOptions& options);
// "MEAN[,MEAN...]/STD[,STD...]". Errors: kUsage.
[[nodiscard]] Result<Normalization> parse_normalization(const std::string& text);

// So many samples from the beginning of a split, from its start again when it ends.
[[nodiscard]] Result<Batch> first_samples(const Dataset& data, int count);
// How many targets of each class there are, but for `ignored`; each of several targets of a sample
// counts. Reads every sample whose targets are not told by Dataset::label.
[[nodiscard]] Result<std::vector<std::uint64_t>> class_counts(const Dataset& data,
                                                              std::int64_t ignored);
// How many numbers a head gives for one sample: one a class with cross_entropy, else as many as a
// target has.
[[nodiscard]] int outputs_wanted(const Dataset& data, const std::string& loss);

// The order of one epoch, keyed by (seed, epoch); file order when `shuffle` is off.
[[nodiscard]] std::vector<std::int64_t> epoch_order(std::int64_t samples, std::uint64_t seed,
                                                    std::uint64_t epoch, bool shuffle);

}  // namespace ecopipe
