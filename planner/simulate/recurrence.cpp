#include "planner/simulate/recurrence.h"

#include <algorithm>
#include <limits>

#include "core/check.h"

namespace ecopipe {
namespace {

constexpr double kNotYet = std::numeric_limits<double>::infinity();

}  // namespace

bool feed_precedes_gradients(const PipelineCosts& costs) {
    return costs.feed && !costs.backward.empty() &&
           costs.feed->resource == costs.backward[0].resource;
}

bool recurrence_applies(const PipelineCosts& costs) {
    if (costs.devices != costs.stage_count()) return false;
    for (std::size_t r = 0; r < costs.resources.size(); ++r)
        if (costs.resources[r].uses >
            (feed_precedes_gradients(costs) && costs.feed->resource == static_cast<int>(r) ? 2 : 1))
            return false;
    return true;
}

// Runs stage `s` as far as its inputs are known.
bool Recurrence::run_stage(const PipelineCosts& costs, const std::vector<const ActionList*>& lists,
                           std::size_t s) {
    Stage& stage = stages_[s];
    const ActionList& list = *lists[s];
    const auto micro_batches = static_cast<std::size_t>(costs.micro_batches);
    const bool last = s + 1 == stages_.size();
    const std::size_t before = stage.next;
    for (; stage.next < list.size(); ++stage.next) {
        const Action& action = list[stage.next];
        const std::size_t at = s * micro_batches + static_cast<std::size_t>(action.micro_batch);
        const bool forward = action.kind == ActionKind::kForward;
        const bool local = action.kind == ActionKind::kWeightGradient;
        const double ready_ms = local ? 0 : forward ? activation_ms_[at] : gradient_ms_[at];
        if (ready_ms == kNotYet) break;
        stage.now_ms = std::max(stage.now_ms, ready_ms) + action_ms(costs.stages[s], action.kind);
        if (forward && !last) {
            const Transfer& transfer = costs.forward[s];
            stage.forward_free_ms =
                std::max(stage.forward_free_ms, stage.now_ms) + transfer.occupy_ms;
            activation_ms_[at + micro_batches] = stage.forward_free_ms + transfer.latency_ms;
        } else if (forward) {
            gradient_ms_[at] = stage.now_ms;
        } else if (!local && s > 0) {
            const Transfer& transfer = costs.backward[s - 1];
            stage.backward_free_ms =
                std::max(stage.backward_free_ms, stage.now_ms) + transfer.occupy_ms;
            gradient_ms_[at - micro_batches] = stage.backward_free_ms + transfer.latency_ms;
        }
    }
    return stage.next > before;
}

double Recurrence::step_ms(const PipelineCosts& costs,
                           const std::vector<const ActionList*>& lists) {
    const std::size_t count = costs.stages.size();
    stages_.assign(count, Stage{});
    activation_ms_.assign(count * static_cast<std::size_t>(costs.micro_batches), kNotYet);
    gradient_ms_.assign(activation_ms_.size(), kNotYet);
    const Transfer feed = costs.feed.value_or(Transfer{});
    for (int m = 0; m < costs.micro_batches; ++m)
        activation_ms_[static_cast<std::size_t>(m)] = (m + 1) * feed.occupy_ms + feed.latency_ms;
    if (feed_precedes_gradients(costs))
        stages_[1].backward_free_ms = costs.micro_batches * feed.occupy_ms;
    // Down with the forwards, up with the gradients, until nothing moves.
    for (bool moved = true; moved;) {
        moved = false;
        for (std::size_t s = 0; s < count; ++s) moved |= run_stage(costs, lists, s);
        for (std::size_t s = count; s-- > 0;) moved |= run_stage(costs, lists, s);
    }
    double step = 0;
    for (std::size_t s = 0; s < count; ++s) {
        ECOPIPE_CHECK(stages_[s].next == lists[s]->size());
        step = std::max(step, stages_[s].now_ms + costs.stages[s].update_ms);
    }
    return step;
}

}  // namespace ecopipe
