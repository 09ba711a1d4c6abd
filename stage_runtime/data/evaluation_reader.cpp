#include "stage_runtime/data/evaluation_reader.h"

#include <algorithm>
#include <numeric>

namespace ecopipe {

EvaluationReader::EvaluationReader(const Dataset& data, int batch, int threads)
    : data_(data),
      batch_(batch),
      count_(static_cast<std::uint64_t>((data.size() + batch - 1) / batch)),
      reader_(
          [this](std::uint64_t index) -> Result<std::vector<Batch>> {
              std::vector<std::int64_t> indices(static_cast<std::size_t>(samples(index)));
              std::iota(indices.begin(), indices.end(), static_cast<std::int64_t>(index) * batch_);
              ECOPIPE_ASSIGN_OR_RETURN(Batch read, data_.batch(indices));
              std::vector<Batch> batches;
              batches.push_back(std::move(read));
              return batches;
          },
          threads) {
    reader_.start(0, count_);
}

int EvaluationReader::samples(std::uint64_t index) const {
    const std::int64_t begin = static_cast<std::int64_t>(index) * batch_;
    return static_cast<int>(std::min<std::int64_t>(batch_, data_.size() - begin));
}

Result<Batch> EvaluationReader::take() {
    ECOPIPE_ASSIGN_OR_RETURN(std::vector<Batch> batches, reader_.take(taken_++));
    return std::move(batches.front());
}

}  // namespace ecopipe
