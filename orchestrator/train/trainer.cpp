#include "orchestrator/train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/command_line.h"
#include "core/log.h"
#include "core/statistics.h"
#include "stage_runtime/data/target_weight.h"
#include "stage_runtime/engine/model/loss_names.h"
#include "stage_runtime/engine/run/clip_scale.h"

namespace ecopipe {
Result<EpochPlan> plan_epochs(std::int64_t samples, const TrainerOptions& options) {
    EpochPlan plan;
    const std::int64_t whole = samples / options.batch;
    const std::int64_t rest = samples % options.batch;
    const bool short_last = rest > 0 && !options.drop_last;
    plan.steps_per_epoch = static_cast<std::uint64_t>(whole + (short_last ? 1 : 0));
    plan.last_batch = short_last ? static_cast<int>(rest) : options.batch;
    if (plan.steps_per_epoch == 0)
        return fail(ExitCode::kUsage,
                    fmt::format("--drop-last: {} samples leave no whole batch of {}", samples,
                                options.batch));
    plan.steps = options.has_steps ? options.steps : options.epochs * plan.steps_per_epoch;
    return plan;
}

BatchSettings Trainer::batch_settings() const {
    return {options_.batch, options_.micro_batches, options_.shuffle, options_.seed,
            options_.augmentation};
}

std::optional<std::uint64_t> Trainer::rewound(const Stretch& stretch) {
    if (const auto key = engine_.take_rewind())
        went_back_to_ = *key > stretch.key ? *key - stretch.key : 0;
    for (ClusterEvent& event : engine_.take_events()) events_.push_back(std::move(event));
    return went_back_to_;
}

Result<void> Trainer::record_step(const StepOutcome& outcome, RunRecord::StepLine line) {
    line.events = OrderedJson::array();
    for (ClusterEvent& event : events_) {
        if (event.since) event.what["pause_ms"] = to_ms(monotonic_now() - *event.since);
        line.events.push_back(std::move(event.what));
    }
    events_.clear();
    return record_.step(line, outcome.devices);
}

Result<bool> Trainer::step(const Stretch& stretch, std::uint64_t step, std::vector<Batch> batch,
                           TrainResult& result) {
    const Instant started = monotonic_now();
    double weight = 0;
    std::int64_t samples = 0;
    for (const Batch& part : batch) {
        weight += target_weight(options_.loss, part.labels);
        samples += part.labels.shape()[0];
    }
    const double divisor = loss_divisor(weight);
    const bool traced = RunRecord::wants_trace(step, stretch.steps, batch.size());
    ECOPIPE_RETURN_IF_ERROR(
        engine_.start_step(stretch.key + step, std::move(batch), divisor, traced));
    ECOPIPE_ASSIGN_OR_RETURN(StepOutcome outcome, engine_.finish_step());
    if (rewound(stretch)) return false;
    const double loss = outcome.loss.sum / divisor;
    if (!std::isfinite(loss))
        return fail(ExitCode::kRunFailed,
                    fmt::format("step {}: the loss is not a finite number; the step was not "
                                "applied (a lower --lr may help)",
                                step + 1));
    if (outcome.nonfinite_layer >= 0)
        return fail(
            ExitCode::kRunFailed,
            fmt::format(
                "step {}: layer {} has a gradient that is not finite; the step was not applied",
                step + 1, outcome.nonfinite_layer));
    const double norm = gradient_norm(outcome.squared_gradient_norms);
    const double learning_rate = options_.schedule.at(options_.learning_rate, step, stretch.steps);
    ECOPIPE_RETURN_IF_ERROR(engine_.commit(learning_rate, clip_scale(norm, options_.clip_norm)));
    // Back to what the step led to, it counts; the loop goes on from there.
    if (const auto back = rewound(stretch); back && *back <= step) return false;
    const double step_ms = to_ms(monotonic_now() - started);
    step_times_.push_back(step_ms);
    samples_done_ += static_cast<double>(samples);
    training_ms_ += step_ms;
    result.last_loss = loss;
    committed_steps_ = stretch.before + step + 1;
    if (watcher_) watcher_({stretch.steps, step_ms, events_});
    if (committed_steps_ > record_.recorded_steps()) {  // else it is a replay
        outcome.recovery_point -= std::min(outcome.recovery_point, stretch.key);
        ECOPIPE_RETURN_IF_ERROR(record_step(outcome, {committed_steps_,
                                                      loss,
                                                      learning_rate,
                                                      norm,
                                                      step_ms,
                                                      static_cast<double>(samples) / step_ms * 1000,
                                                      outcome.recovery_point,
                                                      {}}));
        if (traced) record_.trace(committed_steps_, outcome.devices);
    }
    const double epoch =
        static_cast<double>(step + 1) / static_cast<double>(stretch.plan.steps_per_epoch);
    progress_.show(
        {step + 1, stretch.steps, epoch, loss, samples_done_ / training_ms_ * 1000, step_ms});
    return !went_back_to_;
}

Result<bool> Trainer::save_checkpoint(const Stretch& stretch, std::uint64_t done) {
    if (done == checkpointed_) return true;  // before the failure that led back here
    ECOPIPE_ASSIGN_OR_RETURN(TensorMap state, engine_.state(true));
    if (rewound(stretch)) return false;
    const Checkpoint checkpoint{done, options_.checkpoint_flags, history_, std::move(state)};
    if (const auto written = record_.save_checkpoint(checkpoint); !written) {
        // Training goes on: the newest checkpoint before this one still stands.
        log_error("checkpoint of step {}: {}", done, written.error().message);
        return true;
    }
    checkpointed_ = done;
    ECOPIPE_RETURN_IF_ERROR(engine_.set_base(checkpoint.state, stretch.key + done));
    return !rewound(stretch);
}

Result<bool> Trainer::validate(const Stretch& stretch, std::uint64_t done, TrainResult& result) {
    if (history_.has(done)) return true;  // before the failure that led back here
    const double epoch =
        static_cast<double>(done) / static_cast<double>(stretch.plan.steps_per_epoch);
    ECOPIPE_ASSIGN_OR_RETURN(const auto found, evaluate(*data_.validation, "validation", epoch));
    if (!found || rewound(stretch)) return false;
    const double loss = found->loss();
    ValidationHistory history = history_;
    if (history.add(done, loss)) {
        ECOPIPE_ASSIGN_OR_RETURN(const TensorMap best, engine_.state(false));
        if (rewound(stretch)) return false;
        ECOPIPE_RETURN_IF_ERROR(record_.save_best(best));
    }
    history_ = std::move(history);
    if (options_.early_stop > 0 && history_.without_improvement() >= options_.early_stop) {
        result.stopped_early = true;
        progress_.note(
            fmt::format("epoch {:.2f}: the validation loss has not fallen below {:.4f} "
                        "for {} epochs: stopping",
                        epoch, history_.best_loss(), options_.early_stop));
    }
    return true;
}

Result<bool> Trainer::end_step(const Stretch& stretch, std::uint64_t done, TrainResult& result) {
    const bool epoch_ends = done % stretch.plan.steps_per_epoch == 0;
    const bool evaluation_due = options_.evaluate && (done == stretch.steps || epoch_ends);
    if (evaluation_due && data_.validation) {
        ECOPIPE_ASSIGN_OR_RETURN(const bool on, validate(stretch, done, result));
        if (!on) return false;
    }
    const bool last = done == stretch.steps || result.stopped_early;
    if (evaluation_due && data_.test && (last || !data_.validation)) {
        const double epoch =
            static_cast<double>(done) / static_cast<double>(stretch.plan.steps_per_epoch);
        if (last || epoch > record_.recorded_epochs("test")) {
            ECOPIPE_ASSIGN_OR_RETURN(const auto test, evaluate(epoch));
            if (!test || rewound(stretch)) return false;
            result.test = *test;
        }
    }
    const bool due =
        options_.checkpoint_every > 0 ? done % options_.checkpoint_every == 0 : epoch_ends;
    if (options_.checkpoints && (due || result.interrupted)) return save_checkpoint(stretch, done);
    return true;
}

Result<void> Trainer::train(const Stretch& stretch, TrainResult& result) {
    step_times_.clear();
    samples_done_ = training_ms_ = 0;
    engine_.train_until(stretch.key + stretch.steps);
    std::uint64_t at = stretch.first;
    const BatchSource source(*data_.train, batch_settings());
    BatchReader reader(
        [&](std::uint64_t step) {
            return source.make(stretch.epoch_key + step / stretch.plan.steps_per_epoch,
                               step % stretch.plan.steps_per_epoch);
        },
        options_.readers);
    for (;;) {
        // Only a failure leads back here.
        if (went_back_to_) at = *std::exchange(went_back_to_, std::nullopt);
        history_.rewind(at);
        result.stopped_early =
            options_.early_stop > 0 && history_.without_improvement() >= options_.early_stop;
        bool on = true;
        // What belongs to a step is done with it: that of the step gone back to may not have been,
        // as after a run that was killed between its last checkpoint and its end.
        if (at > 0 && stretch.whole_run) {
            ECOPIPE_ASSIGN_OR_RETURN(on, end_step(stretch, at, result));
        }
        reader.start(at, stretch.steps);
        while (on && at < stretch.steps && !result.interrupted && !result.stopped_early) {
            ECOPIPE_ASSIGN_OR_RETURN(std::vector<Batch> batch, reader.take(at));
            ECOPIPE_ASSIGN_OR_RETURN(on, step(stretch, at, std::move(batch), result));
            if (!on) break;
            ++at;
            result.interrupted = signal_received() != 0;
            if (!stretch.whole_run) continue;
            ECOPIPE_ASSIGN_OR_RETURN(on, end_step(stretch, at, result));
        }
        if (!on) continue;
        ECOPIPE_ASSIGN_OR_RETURN(result.weights, engine_.state(false));
        result.peak_memory = engine_.peak_memory();
        if (!rewound(stretch)) break;
    }
    result.steps = at;
    result.validation = history_;
    result.median_step_ms = median(step_times_);
    result.samples_per_s = training_ms_ > 0 ? samples_done_ / training_ms_ * 1000 : 0;
    return {};
}

Result<std::optional<LossTotals>> Trainer::evaluate(const Dataset& data, const std::string& split,
                                                    double epoch) {
    ECOPIPE_ASSIGN_OR_RETURN(const LossTotals loss,
                             engine_.evaluate(data, options_.test_batch, options_.readers));
    if (rewound({})) return std::optional<LossTotals>();
    const bool regression = is_regression(options_.loss.name);
    if (epoch > record_.recorded_epochs(split))
        ECOPIPE_RETURN_IF_ERROR(record_.evaluation(epoch, split, loss, regression));
    progress_.note(fmt::format(
        "epoch {:.2f}: {} loss {:.4f}, {}", epoch, split, loss.loss(),
        regression ? fmt::format("mean absolute error {:.4f}", loss.mean_absolute_error())
                   : fmt::format("accuracy {:.2f} %", 100 * loss.accuracy())));
    return std::optional(loss);
}

Result<TrainResult> Trainer::run(std::uint64_t first, ValidationHistory history) {
    Stretch stretch;
    ECOPIPE_ASSIGN_OR_RETURN(stretch.plan, plan_epochs(data_.train->size(), options_));
    stretch.first = first;
    stretch.steps = stretch.plan.steps;
    stretch.whole_run = true;
    checkpointed_ = first;
    history_ = std::move(history);
    TrainResult result;
    ECOPIPE_RETURN_IF_ERROR(train(stretch, result));
    return result;
}

Result<TrainResult> Trainer::run_round(std::uint64_t key, std::uint64_t epochs,
                                       double learning_rate) {
    Stretch stretch;
    ECOPIPE_ASSIGN_OR_RETURN(stretch.plan, plan_epochs(data_.train->size(), options_));
    options_.learning_rate = learning_rate;
    stretch.key = stretch.epoch_key = key;
    stretch.steps = epochs * stretch.plan.steps_per_epoch;
    stretch.before = committed_steps_;
    TrainResult result;
    ECOPIPE_RETURN_IF_ERROR(train(stretch, result));
    return result;
}

}  // namespace ecopipe
