#pragma once
// Reads a whole split in its own order, ahead of whoever tests a model on it.

#include "stage_runtime/data/batch_reader.h"

namespace ecopipe {

class EvaluationReader {
  public:
    // Batches of `batch` samples, the last one smaller; at most threads + 1 of them at a time.
    // `data` must outlive it.
    EvaluationReader(const Dataset& data, int batch, int threads);

    [[nodiscard]] std::uint64_t count() const { return count_; }
    [[nodiscard]] int samples(std::uint64_t index) const;
    // The next batch, in order, `count` times. Errors: as of BatchReader.
    [[nodiscard]] Result<Batch> take();

  private:
    const Dataset& data_;
    int batch_;
    std::uint64_t count_;
    std::uint64_t taken_ = 0;
    BatchReader reader_;
};

}  // namespace ecopipe
