#pragma once
// Reads batches ahead of training, on threads of its own, at most so many at a time.

#include <functional>
#include <map>
#include <optional>
#include <thread>
#include <vector>

#include "core/mutex.h"
#include "core/result.h"
#include "stage_runtime/data/dataset.h"

namespace ecopipe {

class BatchReader {
  public:
    // The micro-batches of a step; called by several threads at once.
    using Make = std::function<Result<std::vector<Batch>>(std::uint64_t step)>;
    // With `threads` readers at most threads + 1 batches are made or wait to be taken.
    BatchReader(Make make, int threads);
    BatchReader(const BatchReader&) = delete;
    BatchReader& operator=(const BatchReader&) = delete;
    ~BatchReader();  // waits for the batches that are being made

    // Drops what was read and reads steps first..end-1 from now on.
    void start(std::uint64_t first, std::uint64_t end);
    // The next step's batch, in order from `first`. Errors: what making it said; kRunFailed when it
    // takes longer than kReadDeadline.
    [[nodiscard]] Result<std::vector<Batch>> take(std::uint64_t step);

  private:
    void read();
    [[nodiscard]] Result<std::vector<Batch>> make(std::uint64_t step) const
        ECOPIPE_EXCLUDES(mutex_);

    Make make_;
    std::size_t ahead_;
    Mutex mutex_;
    ConditionVariable changed_;
    bool stopping_ ECOPIPE_GUARDED_BY(mutex_) = false;
    std::uint64_t generation_ ECOPIPE_GUARDED_BY(mutex_) = 0;  // rises with every start
    std::uint64_t next_ ECOPIPE_GUARDED_BY(mutex_) = 0;        // to be read
    std::uint64_t end_ ECOPIPE_GUARDED_BY(mutex_) = 0;
    std::uint64_t taken_ ECOPIPE_GUARDED_BY(mutex_) = 0;  // all before it
    std::map<std::uint64_t, Result<std::vector<Batch>>> ready_ ECOPIPE_GUARDED_BY(mutex_);
    std::vector<std::thread> threads_;
};

}  // namespace ecopipe
