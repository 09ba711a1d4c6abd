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
    HostTensor inputs;                      // [n, sample shape...], float or integer
    HostTensor labels;                      // [n, target shape...]: int64 classes or float numbers
    std::vector<HostTensor> more_inputs{};  // of data with several a sample: the others
    [[nodiscard]] std::vector<HostTensor> all_inputs() const;
};

// One split. Immutable; any thread may read.
class Dataset {
  public:
    virtual ~Dataset() = default;
    [[nodiscard]] virtual std::int64_t size() const = 0;
    [[nodiscard]] virtual Shape sample_shape() const = 0;
    [[nodiscard]] virtual Shape target_shape() const { return {}; }  // {}: one number a sample
    [[nodiscard]] virtual int num_classes() const = 0;               // 0: the targets are numbers
    // Of data with several inputs a sample, their names, in the order in which a batch has them.
    [[nodiscard]] virtual std::vector<std::string> input_names() const { return {}; }
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
