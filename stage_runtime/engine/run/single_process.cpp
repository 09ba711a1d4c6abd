#include "stage_runtime/engine/run/single_process.h"

namespace ecopipe {

Result<SingleProcess> SingleProcess::create(const ModelSpec& spec, const ExecutorOptions& options) {
    ECOPIPE_ASSIGN_OR_RETURN(const ModelInfo info, inspect_model(spec));
    ExecutorOptions whole = options;
    whole.range = {0, static_cast<int>(info.layers.size()) - 1};
    ECOPIPE_ASSIGN_OR_RETURN(auto executor, Executor::create(spec, whole));
    return SingleProcess(std::move(executor));
}

Result<void> SingleProcess::load(const TensorMap& state) {
    for (const NamedTensor& entry : state)
        ECOPIPE_RETURN_IF_ERROR(executor_->load_state(entry.name, entry.tensor));
    return {};
}

Result<StepTotals> SingleProcess::run_step(std::uint64_t step, std::span<const Batch> micro_batches,
                                           double loss_divisor) {
    executor_->begin_step(step, loss_divisor);
    for (std::size_t m = 0; m < micro_batches.size(); ++m) {
        const auto id = static_cast<std::uint32_t>(m);
        ECOPIPE_RETURN_IF_ERROR(
            executor_->forward(id, micro_batches[m].all_inputs(), &micro_batches[m].labels));
        ECOPIPE_RETURN_IF_ERROR(executor_->backward(id, {}));
    }
    return executor_->finish_step();
}

Result<void> SingleProcess::evaluate(const Batch& batch, LossTotals& totals) {
    auto outputs = executor_->evaluate(batch.all_inputs(), &batch.labels, totals);
    if (!outputs) return tl::unexpected<Error>(outputs.error());
    return {};
}

}  // namespace ecopipe
