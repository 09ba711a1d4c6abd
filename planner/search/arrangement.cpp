#include "planner/search/arrangement.h"

#include <algorithm>

#include "planner/simulate/bounds.h"

namespace ecopipe {
namespace {

constexpr std::uint64_t kGraphPriceCost = 1500;  // of a graph's pipeline, in actions

// Lexicographic over the stages by one of their properties: -1, 0 or 1.
template <class Property>
int compare(const Arrangement& a, const Arrangement& b, Property&& property) {
    for (std::size_t s = 0; s < a.stages.size(); ++s)
        if (property(a, s) != property(b, s)) return property(a, s) < property(b, s) ? -1 : 1;
    return 0;
}

}  // namespace

bool better(const Arrangement& a, const Arrangement& b) {
    if (a.stages.empty() || b.stages.empty()) return !a.stages.empty();
    if (step_less(a.step_ms, b.step_ms)) return true;
    if (step_less(b.step_ms, a.step_ms)) return false;
    if (a.stages.size() != b.stages.size()) return a.stages.size() < b.stages.size();
    if (const int c =
            compare(a, b, [](const Arrangement& x, std::size_t s) { return x.stages[s].device; }))
        return c < 0;
    if (const int c = compare(
            a, b, [](const Arrangement& x, std::size_t s) { return x.stages[s].recompute; }))
        return c < 0;
    if (const int c =
            compare(a, b, [](const Arrangement& x, std::size_t s) { return x.in_flight[s]; }))
        return c < 0;
    return compare(a, b, [](const Arrangement& x, std::size_t s) { return x.stages[s].last; }) < 0;
}

std::vector<int> Appraiser::caps(const std::vector<StageSpan>& stages) const {
    std::vector<int> out;
    for (const StageSpan& stage : stages) {
        out.push_back(model_.in_flight_cap(stage));
        const int needed = schedule_.holds_all() ? model_.micro_batches() : 1;
        if (out.back() < needed || (stage.recompute && schedule_.splits_backward)) return {};
    }
    return out;
}

double Appraiser::bound_ms(const PipelineCosts& costs, const std::vector<int>& caps) const {
    const double bound = pipeline_bound(costs, schedule_.splits_backward ? BackwardKind::kSplit
                                                                         : BackwardKind::kWhole)
                             .ms;
    return schedule_.one_f_one_b ? std::max(bound, in_flight_bound_ms(costs, caps)) : bound;
}

void Appraiser::share_room(const std::vector<StageSpan>& stages) {
    if (!model_.is_graph()) return;
    extra_work_ += kGraphPriceCost;
    SharedRoom room{model_.skips(stages), {}};
    for (const StageSpan& stage : stages) {
        const double budget = model_.budget_bytes(stage.device);
        if (stage.recompute && model_.recomputation() != Recomputation::kStages)
            room.stages.push_back(
                {{model_.state_bytes(stage), 0}, budget, &model_.segment_choices(stage)});
        else
            room.stages.push_back({model_.stage_memory(stage), budget, nullptr});
    }
    chooser_.share(std::move(room));
}

Arrangement Appraiser::appraise(const std::vector<StageSpan>& stages, int vectors_max) {
    const std::vector<int> most = caps(stages);
    if (most.empty()) return {};
    share_room(stages);
    model_.pipeline_into(stages, costs_);
    const double bound = bound_ms(costs_, most);
    InFlightChoice choice = chooser_.choose(costs_, most, bound, vectors_max);
    Arrangement out{stages, std::move(choice.in_flight), choice.step_ms};
    offer(out);
    return out;
}

double Appraiser::below_ms(const std::vector<StageSpan>& stages, std::vector<int>& wished,
                           double limit_ms) {
    model_.pipeline_into(stages, costs_);
    if (schedule_.one_f_one_b && quick_bound_ms(costs_) * (1 - 1e-9) > limit_ms)
        return std::numeric_limits<double>::infinity();
    const std::vector<int> most = caps(stages);
    if (most.empty()) return std::numeric_limits<double>::infinity();
    share_room(stages);
    InFlightChoice choice = chooser_.below(costs_, most, wished, limit_ms);
    wished = std::move(choice.in_flight);
    return choice.step_ms;
}

Arrangement Appraiser::finish(int vectors_max) {
    if (best_.stages.empty()) return best_;
    share_room(best_.stages);
    model_.pipeline_into(best_.stages, costs_);
    InFlightChoice choice{best_.in_flight, best_.step_ms};
    chooser_.lower(costs_, caps(best_.stages), vectors_max, choice);
    best_.in_flight = std::move(choice.in_flight);
    best_.step_ms = choice.step_ms;
    return best_;
}

}  // namespace ecopipe
