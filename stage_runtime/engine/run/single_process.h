#pragma once
// The same training in one process with no pipeline: the reference that every partition is compared
// with, byte for byte.

#include <memory>
#include <span>

#include "stage_runtime/data/dataset.h"
#include "stage_runtime/engine/run/executor.h"

namespace ecopipe {

class SingleProcess {
  public:
    [[nodiscard]] static Result<SingleProcess> create(const ModelSpec& spec,
                                                      const ExecutorOptions& options);

    [[nodiscard]] Result<void> load(const TensorMap& state);
    [[nodiscard]] TensorMap state(bool optimizer_state) const {
        return executor_->state(optimizer_state);
    }
    void reset_optimizer() { executor_->reset_optimizer(); }

    // Forward and backward of every micro-batch, one after the other; nothing is applied before
    // commit.
    [[nodiscard]] Result<StepTotals> run_step(std::uint64_t step,
                                              std::span<const Batch> micro_batches,
                                              double loss_divisor);
    void commit(double learning_rate, double gradient_scale) {
        executor_->commit(learning_rate, gradient_scale);
    }
    [[nodiscard]] Result<void> evaluate(const Batch& batch, LossTotals& totals);

  private:
    explicit SingleProcess(std::unique_ptr<Executor> executor) : executor_(std::move(executor)) {}
    std::unique_ptr<Executor> executor_;
};

}  // namespace ecopipe
