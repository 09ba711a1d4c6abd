#pragma once
// The micro-batches of a step: a pure function of seed, epoch and index.

#include <map>
#include <memory>
#include <vector>

#include "core/mutex.h"
#include "stage_runtime/data/augmentation.h"
#include "stage_runtime/data/dataset.h"

namespace ecopipe {

struct BatchSettings {
    int batch = 64;
    int micro_batches = 8;
    bool shuffle = true;
    std::uint64_t seed = 0;
    Augmentation augmentation;
};

// Any thread may call it.
class BatchSource {
  public:
    BatchSource(const Dataset& data, BatchSettings settings)
        : data_(data), settings_(std::move(settings)) {}
    // Batch `index` of an epoch, cut into micro-batches. Errors: the data set's.
    [[nodiscard]] Result<std::vector<Batch>> make(std::uint64_t epoch, std::uint64_t index) const;

  private:
    using Order = std::shared_ptr<const std::vector<std::int64_t>>;
    [[nodiscard]] Order order(std::uint64_t epoch) const;
    const Dataset& data_;
    BatchSettings settings_;
    mutable Mutex mutex_;
    // Of the newest epochs.
    mutable std::map<std::uint64_t, Order> orders_ ECOPIPE_GUARDED_BY(mutex_);
};

}  // namespace ecopipe
