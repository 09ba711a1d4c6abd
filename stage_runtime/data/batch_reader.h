#pragma once
// Reads batches ahead of training, on threads of its own, at most so many at a time.

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

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
    [[nodiscard]] Result<std::vector<Batch>> make(std::uint64_t step) const;

    Make make_;
    std::size_t ahead_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool stopping_ = false;
    std::uint64_t generation_ = 0;  // rises with every start
    std::uint64_t next_ = 0;        // to be read
    std::uint64_t end_ = 0;
    std::uint64_t taken_ = 0;  // all before it
    std::map<std::uint64_t, Result<std::vector<Batch>>> ready_;
    std::vector<std::thread> threads_;
};

}  // namespace ecopipe
