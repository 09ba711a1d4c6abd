#include "fl_server/workers/evaluator.h"

#include <algorithm>
#include <numeric>

#include "stage_runtime/engine/run/test_batch.h"

namespace ecopipe {

Result<std::unique_ptr<Evaluator>> Evaluator::create(const ModelSpec& spec, const Dataset& data) {
    ECOPIPE_ASSIGN_OR_RETURN(SingleProcess process, SingleProcess::create(spec, ExecutorOptions{}));
    ECOPIPE_ASSIGN_OR_RETURN(const int batch, test_batch(spec, data));
    return std::unique_ptr<Evaluator>(new Evaluator(std::move(process), data, batch));
}

Result<Evaluation> Evaluator::evaluate(const TensorMap& weights) {
    ECOPIPE_RETURN_IF_ERROR(process_.load(weights));
    LossTotals totals;
    std::vector<std::int64_t> indices;
    for (std::int64_t begin = 0; begin < data_.size(); begin += batch_) {
        indices.resize(static_cast<std::size_t>(std::min(batch_, data_.size() - begin)));
        std::iota(indices.begin(), indices.end(), begin);
        ECOPIPE_ASSIGN_OR_RETURN(const Batch part, data_.batch(indices));
        ECOPIPE_RETURN_IF_ERROR(process_.evaluate(part, totals));
    }
    return Evaluation{totals.loss(), totals.accuracy()};
}

}  // namespace ecopipe
