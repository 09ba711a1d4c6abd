#include "orchestrator/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/command_line.h"
#include "core/log.h"
#include "planner/plan.h"

namespace ecopipe {
namespace {

double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::nth_element(values.begin(),
                     values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
    return values[values.size() / 2];
}

}  // namespace

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

std::vector<Batch> Trainer::batch(std::uint64_t epoch_key, std::uint64_t index) {
    if (order_.empty() || ordered_epoch_ != epoch_key) {
        order_ = epoch_order(data_.train->size(), options_.seed, epoch_key, options_.shuffle);
        ordered_epoch_ = epoch_key;
    }
    const auto begin = static_cast<std::size_t>(index) * static_cast<std::size_t>(options_.batch);
    const std::size_t end =
        std::min(begin + static_cast<std::size_t>(options_.batch), order_.size());
    std::vector<Batch> parts;
    std::size_t at = begin;
    for (const int size :
         micro_batch_sizes(static_cast<int>(end - begin), options_.micro_batches)) {
        parts.push_back(
            data_.train->batch(std::span(order_).subspan(at, static_cast<std::size_t>(size))));
        at += static_cast<std::size_t>(size);
    }
    return parts;
}

std::optional<std::uint64_t> Trainer::rewound(const Stretch& stretch) {
    if (const auto key = engine_.take_rewind())
        went_back_to_ = *key > stretch.key ? *key - stretch.key : 0;
    for (ClusterEvent& event : engine_.take_events()) events_.push_back(std::move(event));
    return went_back_to_;
}

Result<void> Trainer::record_step(const StepOutcome& outcome, double loss, double step_ms,
                                  std::int64_t labels) {
    OrderedJson events = OrderedJson::array();
    for (ClusterEvent& event : events_) {
        event.what["pause_ms"] = to_ms(monotonic_now() - event.since);
        events.push_back(std::move(event.what));
    }
    events_.clear();
    return record_.step(
        {committed_steps_, loss, options_.learning_rate, step_ms,
         static_cast<double>(labels) / step_ms * 1000, outcome.recovery_point, std::move(events)},
        outcome.devices);
}

Result<bool> Trainer::step(const Stretch& stretch, std::uint64_t step, std::vector<Batch>& next,
                           TrainResult& result) {
    const Instant started = monotonic_now();
    std::int64_t labels = 0;
    for (const Batch& part : next) labels += part.labels.elements();
    ECOPIPE_RETURN_IF_ERROR(
        engine_.start_step(stretch.key + step, std::move(next), static_cast<double>(labels), true));
    next.clear();
    if (step + 1 < stretch.steps)
        next = batch(stretch.epoch_key + (step + 1) / stretch.plan.steps_per_epoch,
                     (step + 1) % stretch.plan.steps_per_epoch);
    ECOPIPE_ASSIGN_OR_RETURN(StepOutcome outcome, engine_.finish_step());
    if (rewound(stretch)) return false;
    const double loss = outcome.loss.sum / static_cast<double>(labels);
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
    ECOPIPE_RETURN_IF_ERROR(engine_.commit(options_.learning_rate, 1.0));
    if (rewound(stretch)) return false;
    const double step_ms = to_ms(monotonic_now() - started);
    step_times_.push_back(step_ms);
    samples_done_ += static_cast<double>(labels);
    training_ms_ += step_ms;
    result.last_loss = loss;
    for (const DeviceReport& report : outcome.devices) {
        std::uint64_t& peak = result.peak_bytes[report.device];
        peak = std::max(peak, report.peak_bytes);
    }
    committed_steps_ = stretch.whole_run ? step + 1 : committed_steps_ + 1;
    if (committed_steps_ > record_.recorded_steps()) {  // else it is a replay
        outcome.recovery_point -= std::min(outcome.recovery_point, stretch.key);
        ECOPIPE_RETURN_IF_ERROR(record_step(outcome, loss, step_ms, labels));
        record_.trace(committed_steps_, outcome.devices);
    }
    const double epoch =
        static_cast<double>(step + 1) / static_cast<double>(stretch.plan.steps_per_epoch);
    progress_.show(
        {step + 1, stretch.steps, epoch, loss, samples_done_ / training_ms_ * 1000, step_ms});
    return true;
}

Result<bool> Trainer::save_checkpoint(const Stretch& stretch, std::uint64_t done) {
    ECOPIPE_ASSIGN_OR_RETURN(TensorMap state, engine_.state(true));
    if (rewound(stretch)) return false;
    const Checkpoint checkpoint{done, options_.checkpoint_flags, std::move(state)};
    if (const auto written = record_.save_checkpoint(checkpoint); !written) {
        // Training goes on: the newest checkpoint before this one still stands.
        log_error("checkpoint of step {}: {}", done, written.error().message);
        return true;
    }
    ECOPIPE_RETURN_IF_ERROR(engine_.set_base(checkpoint.state, stretch.key + done));
    return true;
}

Result<bool> Trainer::end_step(const Stretch& stretch, std::uint64_t done, TrainResult& result) {
    const bool epoch_ends = done % stretch.plan.steps_per_epoch == 0;
    const bool last = done == stretch.steps;
    if (options_.evaluate && (last || epoch_ends)) {
        const double epoch =
            static_cast<double>(done) / static_cast<double>(stretch.plan.steps_per_epoch);
        if (last || epoch > record_.recorded_epochs()) {
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
    std::vector<Batch> next;
    for (;;) {
        // Only a failure leads back here.
        if (went_back_to_) at = *std::exchange(went_back_to_, std::nullopt);
        if (at < stretch.steps)
            next = batch(stretch.epoch_key + at / stretch.plan.steps_per_epoch,
                         at % stretch.plan.steps_per_epoch);
        bool on = true;
        while (on && at < stretch.steps && !result.interrupted) {
            ECOPIPE_ASSIGN_OR_RETURN(on, step(stretch, at, next, result));
            if (!on) break;
            ++at;
            result.interrupted = signal_received() != 0;
            if (!stretch.whole_run) continue;
            ECOPIPE_ASSIGN_OR_RETURN(on, end_step(stretch, at, result));
        }
        if (!on) continue;
        ECOPIPE_ASSIGN_OR_RETURN(result.weights, engine_.state(false));
        if (!rewound(stretch)) break;
    }
    result.steps = at;
    result.median_step_ms = median(step_times_);
    result.samples_per_s = training_ms_ > 0 ? samples_done_ / training_ms_ * 1000 : 0;
    return {};
}

Result<std::optional<LossSum>> Trainer::evaluate(double epoch) {
    const int batch_size = (options_.batch + options_.micro_batches - 1) / options_.micro_batches;
    ECOPIPE_ASSIGN_OR_RETURN(const LossSum loss, engine_.evaluate(*data_.test, batch_size));
    if (const auto back = engine_.take_rewind()) {
        went_back_to_ = back;
        return std::optional<LossSum>();
    }
    if (epoch > record_.recorded_epochs())
        ECOPIPE_RETURN_IF_ERROR(record_.evaluation(epoch, "test", loss));
    const auto labels = static_cast<double>(std::max<std::uint64_t>(loss.labels, 1));
    progress_.note(fmt::format("epoch {:.2f}: test loss {:.4f}, accuracy {:.2f} %", epoch,
                               loss.sum / labels,
                               100 * static_cast<double>(loss.correct) / labels));
    return std::optional(loss);
}

Result<TrainResult> Trainer::run(std::uint64_t first) {
    Stretch stretch;
    ECOPIPE_ASSIGN_OR_RETURN(stretch.plan, plan_epochs(data_.train->size(), options_));
    stretch.first = first;
    stretch.steps = stretch.plan.steps;
    stretch.whole_run = true;
    TrainResult result;
    ECOPIPE_RETURN_IF_ERROR(train(stretch, result));
    return result;
}

Result<TrainResult> Trainer::run_round(std::uint64_t round, std::uint64_t epochs,
                                       double learning_rate) {
    Stretch stretch;
    ECOPIPE_ASSIGN_OR_RETURN(stretch.plan, plan_epochs(data_.train->size(), options_));
    options_.learning_rate = learning_rate;
    stretch.key = stretch.epoch_key = round_key(round);
    stretch.steps = epochs * stretch.plan.steps_per_epoch;
    TrainResult result;
    ECOPIPE_RETURN_IF_ERROR(train(stretch, result));
    return result;
}

}  // namespace ecopipe
