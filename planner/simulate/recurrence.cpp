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

namespace {

// Over each resource at most one edge between stages, besides one of inputs.
bool edges_do_not_meet(const PipelineCosts& costs) {
    std::vector<char> taken(2 * costs.resources.size(), 0);
    for (const auto* edges : {&costs.values, &costs.gradients})
        for (const StageEdge& edge : *edges) {
            if (edge.transfer.resource < 0) continue;
            char& seen = taken[2 * static_cast<std::size_t>(edge.transfer.resource) +
                               (edge.from < 0 ? 1 : 0)];
            if (seen != 0) return false;
            seen = 1;
        }
    return true;
}

}  // namespace

bool recurrence_applies(const PipelineCosts& costs) {
    if (!costs.place.one_each()) return false;
    if (costs.graph) return edges_do_not_meet(costs);
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

// All inputs are ready at t = 0: over a link that they share, they go before everything else.
void Recurrence::read_edges(const PipelineCosts& costs, const std::vector<StageEdge>& edges,
                            std::vector<std::vector<Way>>& leaving, std::vector<double>& there_ms,
                            std::vector<int>& missing) {
    const auto micro_batches = static_cast<std::size_t>(costs.micro_batches);
    leaving.resize(costs.stages.size());
    for (std::vector<Way>& ways : leaving) ways.clear();
    there_ms.assign(costs.stages.size() * micro_batches, 0);
    missing.assign(there_ms.size(), 0);
    for (const StageEdge& edge : edges) {
        const std::size_t begin = static_cast<std::size_t>(edge.to) * micro_batches;
        if (edge.from >= 0) {
            double taken_ms = 0;
            for (const StageEdge& feed : costs.values) {
                if (feed.from >= 0) break;
                if (feed.transfer.resource >= 0 && feed.transfer.resource == edge.transfer.resource)
                    taken_ms = costs.micro_batches * feed.transfer.occupy_ms;
            }
            leaving[static_cast<std::size_t>(edge.from)].push_back(
                {edge.to, edge.transfer, taken_ms});
            for (std::size_t m = 0; m < micro_batches; ++m) ++missing[begin + m];
        } else {
            for (std::size_t m = 0; m < micro_batches; ++m)
                there_ms[begin + m] =
                    static_cast<double>(m + 1) * edge.transfer.occupy_ms + edge.transfer.latency_ms;
        }
    }
}

bool Recurrence::run_graph_stage(const PipelineCosts& costs, const ActionList& list,
                                 std::size_t s) {
    Stage& stage = stages_[s];
    const auto micro_batches = static_cast<std::size_t>(costs.micro_batches);
    const std::size_t before = stage.next;
    for (; stage.next < list.size(); ++stage.next) {
        const Action& action = list[stage.next];
        const auto m = static_cast<std::size_t>(action.micro_batch);
        const std::size_t at = s * micro_batches + m;
        const bool forward = action.kind == ActionKind::kForward;
        const bool local = action.kind == ActionKind::kWeightGradient;
        if (!local && (forward ? missing_values_ : missing_gradients_)[at] > 0) break;
        const double ready_ms = local ? 0 : (forward ? activation_ms_ : gradient_ms_)[at];
        stage.now_ms = std::max(stage.now_ms, ready_ms) + action_ms(costs.stages[s], action.kind);
        if (local) continue;
        std::vector<double>& there_ms = forward ? activation_ms_ : gradient_ms_;
        std::vector<int>& missing = forward ? missing_values_ : missing_gradients_;
        for (Way& way : (forward ? values_ : gradients_)[s]) {
            way.free_ms = std::max(way.free_ms, stage.now_ms) + way.transfer.occupy_ms;
            const std::size_t to = static_cast<std::size_t>(way.to) * micro_batches + m;
            there_ms[to] = std::max(there_ms[to], way.free_ms + way.transfer.latency_ms);
            --missing[to];
        }
    }
    return stage.next > before;
}

void Recurrence::begin_chain(const PipelineCosts& costs) {
    activation_ms_.assign(costs.stages.size() * static_cast<std::size_t>(costs.micro_batches),
                          kNotYet);
    gradient_ms_.assign(activation_ms_.size(), kNotYet);
    const Transfer feed = costs.feed.value_or(Transfer{});
    for (int m = 0; m < costs.micro_batches; ++m)
        activation_ms_[static_cast<std::size_t>(m)] = (m + 1) * feed.occupy_ms + feed.latency_ms;
    if (feed_precedes_gradients(costs))
        stages_[1].backward_free_ms = costs.micro_batches * feed.occupy_ms;
}

void Recurrence::begin_graph(const PipelineCosts& costs) {
    read_edges(costs, costs.values, values_, activation_ms_, missing_values_);
    read_edges(costs, costs.gradients, gradients_, gradient_ms_, missing_gradients_);
}

double Recurrence::step_ms(const PipelineCosts& costs,
                           const std::vector<const ActionList*>& lists) {
    const std::size_t count = costs.stages.size();
    stages_.assign(count, Stage{});
    if (costs.graph) {
        begin_graph(costs);
    } else {
        begin_chain(costs);
    }
    const auto run = [&](std::size_t s) {
        return costs.graph ? run_graph_stage(costs, *lists[s], s) : run_stage(costs, lists, s);
    };
    // Down with the forwards, up with the gradients, until nothing moves.
    for (bool moved = true; moved;) {
        moved = false;
        for (std::size_t s = 0; s < count; ++s) moved |= run(s);
        for (std::size_t s = count; s-- > 0;) moved |= run(s);
    }
    double step = 0;
    for (std::size_t s = 0; s < count; ++s) {
        ECOPIPE_CHECK(stages_[s].next == lists[s]->size());
        step = std::max(step, stages_[s].now_ms + costs.stages[s].update_ms);
    }
    return step;
}

}  // namespace ecopipe
