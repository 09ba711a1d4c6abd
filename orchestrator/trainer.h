#pragma once
// The training loop: batches in keyed order, begin-commit steps, evaluation each epoch. The same
// for a pipeline, for one process and for a federated round.

#include <functional>

#include "orchestrator/progress.h"
#include "orchestrator/run_record.h"
#include "orchestrator/training_engine.h"
#include "stage_runtime/data/dataset.h"

namespace ecopipe {

struct TrainerOptions {
    int batch = 64;
    int micro_batches = 8;
    std::uint64_t epochs = 1;
    std::uint64_t steps = 0;  // in all, when has_steps
    bool has_steps = false;
    bool drop_last = false;
    bool shuffle = true;
    bool evaluate = true;  // after each epoch
    double learning_rate = 0.01;
    std::uint64_t seed = 0;
};

struct EpochPlan {
    std::uint64_t steps_per_epoch = 0;
    std::uint64_t steps = 0;  // in all
    int last_batch = 0;       // samples of an epoch's last step
};
// Errors: kUsage when no whole batch is left.
[[nodiscard]] Result<EpochPlan> plan_epochs(std::int64_t samples, const TrainerOptions& options);

struct TrainResult {
    std::uint64_t steps = 0;
    double last_loss = 0;
    LossSum test;  // of the last evaluation
    double median_step_ms = 0;
    double samples_per_s = 0;
    bool interrupted = false;  // by a signal, after a whole step
};

class Trainer {
  public:
    Trainer(TrainingEngine& engine, const DataSplits& data, TrainerOptions options,
            RunRecord& record, Progress& progress)
        : engine_(engine), data_(data), options_(options), record_(record), progress_(progress) {}

    // The whole run with an evaluation after each epoch. Errors: kRunFailed when the loss or a
    // gradient is no finite number, naming step and layer; the engine's own.
    [[nodiscard]] Result<TrainResult> run();
    // One federated round: `epochs` epochs whose order and draws are keyed by `round`, without
    // evaluation.
    [[nodiscard]] Result<TrainResult> run_round(std::uint64_t round, std::uint64_t epochs,
                                                double learning_rate);
    [[nodiscard]] Result<LossSum> evaluate(double epoch);

  private:
    [[nodiscard]] std::vector<Batch> batch(std::uint64_t epoch_key, std::uint64_t index);
    [[nodiscard]] Result<void> train_steps(std::uint64_t first_key_step,
                                           std::uint64_t first_epoch_key, const EpochPlan& plan,
                                           std::uint64_t steps, bool evaluate_epochs,
                                           TrainResult& result);

    TrainingEngine& engine_;
    const DataSplits& data_;
    TrainerOptions options_;
    RunRecord& record_;
    Progress& progress_;
    std::uint64_t ordered_epoch_ = 0;
    std::vector<std::int64_t> order_;
    std::uint64_t recorded_steps_ = 0;
};

}  // namespace ecopipe
