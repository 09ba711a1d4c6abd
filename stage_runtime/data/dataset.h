#pragma once
// Training data as the portal reads it: samples by index, in memory, torch-free. One file a format.

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
    HostTensor inputs;  // [n, sample shape...]
    HostTensor labels;  // [n] int64
};

// One split. Immutable; any thread may read.
class Dataset {
  public:
    virtual ~Dataset() = default;
    [[nodiscard]] virtual std::int64_t size() const = 0;
    [[nodiscard]] virtual Shape sample_shape() const = 0;
    [[nodiscard]] virtual int num_classes() const = 0;
    [[nodiscard]] virtual std::int64_t label(std::int64_t index) const = 0;
    [[nodiscard]] virtual Batch batch(std::span<const std::int64_t> indices) const = 0;
};

struct DataSplits {
    std::unique_ptr<Dataset> train;
    std::unique_ptr<Dataset> test;
};

struct DataOptions {
    std::vector<int> classes;  // keep only these labels; empty: all
    std::int64_t limit = 0;    // then the first N of the training split; 0: all
    int channels =
        0;  // the model's: a one-channel image is repeated to fill it; 0: as the data are
};

// fashion-mnist | idx:DIR | cifar10:DIR | synthetic:CxHxW:CLASSES:COUNT. Errors: kUsage for another
// word, kBadFile for missing, truncated or inconsistent files, naming them.
[[nodiscard]] Result<DataSplits> open_data(const std::string& spec, const DataOptions& options);
// The same for one split only, to evaluate on.
[[nodiscard]] Result<std::unique_ptr<Dataset>> open_test_data(const std::string& spec,
                                                              const DataOptions& options);

// The order of one epoch, keyed by (seed, epoch); file order when `shuffle` is off.
[[nodiscard]] std::vector<std::int64_t> epoch_order(std::int64_t samples, std::uint64_t seed,
                                                    std::uint64_t epoch, bool shuffle);

}  // namespace ecopipe
