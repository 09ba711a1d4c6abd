#include "orchestrator/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/command_line.h"
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

Result<void> Trainer::train_steps(std::uint64_t first_key_step, std::uint64_t first_epoch_key,
                                  const EpochPlan& plan, std::uint64_t steps, bool evaluate_epochs,
                                  TrainResult& result) {
    std::vector<double> step_times;
    double samples_done = 0;
    double training_ms = 0;
    const auto prepare = [&](std::uint64_t step) {
        return batch(first_epoch_key + step / plan.steps_per_epoch, step % plan.steps_per_epoch);
    };
    std::vector<Batch> next = steps > 0 ? prepare(0) : std::vector<Batch>();
    for (std::uint64_t step = 0; step < steps; ++step) {
        const Instant started = monotonic_now();
        std::int64_t labels = 0;
        for (const Batch& part : next) labels += part.labels.elements();
        ECOPIPE_RETURN_IF_ERROR(engine_.start_step(first_key_step + step, std::move(next),
                                                   static_cast<double>(labels), true));
        if (step + 1 < steps) next = prepare(step + 1);
        ECOPIPE_ASSIGN_OR_RETURN(StepOutcome outcome, engine_.finish_step());
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
        const double step_ms = to_ms(monotonic_now() - started);
        step_times.push_back(step_ms);
        samples_done += static_cast<double>(labels);
        training_ms += step_ms;
        result.last_loss = loss;
        ++result.steps;
        ++recorded_steps_;
        ECOPIPE_RETURN_IF_ERROR(record_.step(recorded_steps_, loss, options_.learning_rate, step_ms,
                                             static_cast<double>(labels) / step_ms * 1000,
                                             outcome.devices));
        record_.trace(recorded_steps_, outcome.devices);
        const double epoch =
            static_cast<double>(step + 1) / static_cast<double>(plan.steps_per_epoch);
        progress_.show({step + 1, steps, epoch, loss, samples_done / training_ms * 1000, step_ms},
                       outcome.devices);
        const bool last = step + 1 == steps;
        if (signal_received() != 0) {
            result.interrupted = true;
            break;
        }
        if (evaluate_epochs && (last || (step + 1) % plan.steps_per_epoch == 0)) {
            ECOPIPE_ASSIGN_OR_RETURN(result.test, evaluate(epoch));
        }
    }
    result.median_step_ms = median(step_times);
    result.samples_per_s = training_ms > 0 ? samples_done / training_ms * 1000 : 0;
    return {};
}

Result<LossSum> Trainer::evaluate(double epoch) {
    const int batch_size = (options_.batch + options_.micro_batches - 1) / options_.micro_batches;
    ECOPIPE_ASSIGN_OR_RETURN(const LossSum loss, engine_.evaluate(*data_.test, batch_size));
    ECOPIPE_RETURN_IF_ERROR(record_.evaluation(epoch, "test", loss));
    const auto labels = static_cast<double>(std::max<std::uint64_t>(loss.labels, 1));
    progress_.note(fmt::format("epoch {:.2f}: test loss {:.4f}, accuracy {:.2f} %", epoch,
                               loss.sum / labels,
                               100 * static_cast<double>(loss.correct) / labels));
    return loss;
}

Result<TrainResult> Trainer::run() {
    ECOPIPE_ASSIGN_OR_RETURN(const EpochPlan plan, plan_epochs(data_.train->size(), options_));
    TrainResult result;
    ECOPIPE_RETURN_IF_ERROR(train_steps(0, 0, plan, plan.steps, options_.evaluate, result));
    return result;
}

Result<TrainResult> Trainer::run_round(std::uint64_t round, std::uint64_t epochs,
                                       double learning_rate) {
    ECOPIPE_ASSIGN_OR_RETURN(const EpochPlan plan, plan_epochs(data_.train->size(), options_));
    // Rounds key their draws far apart: neither steps nor epochs of two rounds ever share a number.
    constexpr unsigned kRoundShift = 24;
    options_.learning_rate = learning_rate;
    TrainResult result;
    ECOPIPE_RETURN_IF_ERROR(train_steps(round << kRoundShift, round << kRoundShift, plan,
                                        epochs * plan.steps_per_epoch, false, result));
    return result;
}

}  // namespace ecopipe
