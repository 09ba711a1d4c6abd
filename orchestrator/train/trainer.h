#pragma once
// The training loop: batches in keyed order, begin-commit steps, evaluation each epoch. The same
// for a pipeline, for one process and for a federated round.

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "core/step_number.h"
#include "orchestrator/session/training_engine.h"
#include "orchestrator/train/batch_source.h"
#include "orchestrator/train/lr_schedule.h"
#include "orchestrator/train/run_record.h"
#include "orchestrator/train/validation_history.h"
#include "orchestrator/view/progress.h"
#include "stage_runtime/data/batch_reader.h"
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
    bool evaluate = true;            // after each epoch
    bool evaluate_received = false;  // each model that a federation's server sends
    double learning_rate = 0.01;
    LearningRateSchedule schedule;
    double clip_norm = 0;  // 0: never
    LossSpec loss;
    Augmentation augmentation;
    std::uint64_t early_stop = 0;  // epochs without a lower validation loss; 0: never
    int readers = 1;               // threads that read batches ahead
    int test_batch = 1;            // samples at a time of an evaluation (test_batch.h)
    std::uint64_t seed = 0;
    bool checkpoints = false;
    std::uint64_t checkpoint_every = 0;  // steps; 0: each epoch
    OrderedJson checkpoint_flags;        // of the run, for the checkpoint
};

struct EpochPlan {
    std::uint64_t steps_per_epoch = 0;
    std::uint64_t steps = 0;  // in all
    int last_batch = 0;       // samples of an epoch's last step
};
// Errors: kUsage when no whole batch is left.
[[nodiscard]] Result<EpochPlan> plan_epochs(std::int64_t samples, const TrainerOptions& options);

struct TrainResult {
    std::uint64_t steps = 0;  // of the whole run, those before a resumption included
    TensorMap weights;        // at the end
    double last_loss = 0;
    LossTotals test;               // of the last evaluation
    ValidationHistory validation;  // empty without a validation split
    bool stopped_early = false;
    double median_step_ms = 0;
    double samples_per_s = 0;
    std::map<std::string, MemoryByUse> peak_memory;  // of tensors, by device
    bool interrupted = false;                        // by a signal, after a whole step
};

// A committed step, for whoever watches how fast the cluster is.
struct StepPace {
    std::uint64_t steps = 0;  // of the stretch
    double step_ms = 0;
    const std::vector<ClusterEvent>& events;  // since the step before
};

class Trainer {
  public:
    Trainer(TrainingEngine& engine, const DataSplits& data, TrainerOptions options,
            RunRecord& record, Progress& progress)
        : engine_(engine), data_(data), options_(options), record_(record), progress_(progress) {}

    // The whole run from step `first` on, with an evaluation after each epoch: on the validation
    // split when there is one, and then on the test split only at the end, so that it selects
    // nothing. The engine has been loaded with the state of that step, which `history` led to. When
    // the engine goes back, so does the loop: batches are a pure function of seed, epoch and index.
    // Errors: kRunFailed when the loss or a gradient is no finite number, naming step and layer;
    // the engine's own.
    [[nodiscard]] Result<TrainResult> run(std::uint64_t first = 0, ValidationHistory history = {});
    // One federated round: `epochs` epochs whose steps and epochs count from `key` (`round_key`),
    // and with them order and draws; without evaluation.
    [[nodiscard]] Result<TrainResult> run_round(std::uint64_t key, std::uint64_t epochs,
                                                double learning_rate);
    void watch_pace(std::function<void(const StepPace&)> watcher) { watcher_ = std::move(watcher); }
    // The test split's. Nothing when the engine went back instead.
    [[nodiscard]] Result<std::optional<LossTotals>> evaluate(double epoch) {
        went_back_to_.reset();  // a caller who trains nothing asks again
        return evaluate(*data_.test, "test", epoch);
    }

  private:
    // A stretch of steps, numbered from 0 here and from `key` for the engine.
    struct Stretch {
        std::uint64_t key = 0;
        std::uint64_t epoch_key = 0;
        std::uint64_t first = 0;
        std::uint64_t steps = 0;   // the step to stop before
        std::uint64_t before = 0;  // steps of earlier stretches, as they are recorded
        bool whole_run = false;    // with evaluations and checkpoints
        EpochPlan plan;
    };
    [[nodiscard]] BatchSettings batch_settings() const;
    [[nodiscard]] Result<std::optional<LossTotals>> evaluate(const Dataset& data,
                                                             const std::string& split,
                                                             double epoch);
    // Validates, keeps the best weights, decides whether to stop. False when the engine went back.
    [[nodiscard]] Result<bool> validate(const Stretch& stretch, std::uint64_t done,
                                        TrainResult& result);
    [[nodiscard]] Result<void> train(const Stretch& stretch, TrainResult& result);
    // One step, committed and recorded; false when the engine went back.
    [[nodiscard]] Result<bool> step(const Stretch& stretch, std::uint64_t step,
                                    std::vector<Batch> batch, TrainResult& result);
    // What comes after a step: an evaluation, a checkpoint. False when the engine went back.
    [[nodiscard]] Result<bool> end_step(const Stretch& stretch, std::uint64_t done,
                                        TrainResult& result);
    [[nodiscard]] Result<bool> save_checkpoint(const Stretch& stretch, std::uint64_t done);
    [[nodiscard]] Result<void> record_step(const StepOutcome& outcome, RunRecord::StepLine line);
    // The step to go on from, when the engine went back since the last call.
    [[nodiscard]] std::optional<std::uint64_t> rewound(const Stretch& stretch);

    TrainingEngine& engine_;
    const DataSplits& data_;
    TrainerOptions options_;
    RunRecord& record_;
    Progress& progress_;
    std::function<void(const StepPace&)> watcher_;
    ValidationHistory history_;
    std::uint64_t committed_steps_ = 0;
    std::uint64_t checkpointed_ = 0;  // the newest checkpoint's step; nothing is to be saved of 0
    std::optional<std::uint64_t> went_back_to_;
    std::vector<ClusterEvent> events_;  // to be recorded with the next committed step
    std::vector<double> step_times_;
    double samples_done_ = 0;
    double training_ms_ = 0;
};

}  // namespace ecopipe
