#include "planner/search/layout.h"

#include <algorithm>
#include <limits>

#include "planner/simulate/bounds.h"

namespace ecopipe {
namespace {
constexpr double kMisfit = 1e12;  // ms: above every step, so that any layout that fits wins
}

LayoutEstimator::LayoutEstimator(const CostModel& model, const Schedule& schedule)
    : model_(model), schedule_(schedule) {
    for (int layer = 0; layer < model.layers(); ++layer)
        if (model.may_cut_before(layer)) first_layer_.push_back(layer);
    first_layer_.push_back(model.layers());
}

double LayoutEstimator::work_ms(int device, int begin, int end) const {
    return model_.work_ms(device, first_layer_[static_cast<std::size_t>(begin)],
                          first_layer_[static_cast<std::size_t>(end)] - 1);
}

LayoutEstimator::Choice LayoutEstimator::choice(const StageSpan& span) const {
    const int needed = schedule_.holds_all() ? model_.micro_batches() : 1;
    const int cap = model_.in_flight_cap(span);
    const StageCost cost = cap < needed ? model_.stage_cost(span) : model_.stage_cost(span, cap);
    const bool split = schedule_.splits_backward;
    Choice out{span,
               cost.forward_ms,
               split ? cost.input_gradient_ms : cost.backward_ms,
               split ? cost.weight_gradient_ms : 0,
               std::max(cap, needed),
               0};
    if (cap < needed) {
        const double budget = std::max(1.0, model_.budget_bytes(span.device));
        out.missing = std::max(1e-9, model_.stage_memory(span).peak(needed) / budget - 1);
    }
    return out;
}

double LayoutEstimator::travel_ms(const Layout& layout, std::size_t s, int last_layer) const {
    const int here = layout.devices[s];
    const int next = layout.devices[s + 1];
    return model_.output_ms(last_layer, here, next) + model_.latency_ms(here, next);
}

// The pace of the pipeline from stage s on, if `choice` became stage s; its in-flight count goes to
// counts_[s].
double LayoutEstimator::pace_with(const Choice& choice, std::size_t s, double pace_ms) {
    const double own = choice.forward_ms + choice.back_ms;
    pace_[s].own_ms = own;
    pace_ms = std::max(pace_ms, own);
    if (pace_ms <= 0) return 0;
    double round = own;
    int needed = 1;
    for (std::size_t t = s + 1; t < chosen_.size(); ++t) {
        round += pace_[t - 1].travel_ms + pace_[t].own_ms;
        needed = std::max(needed, counts_[t] - 1 + whole_above(round / pace_ms));
    }
    needed = std::min(std::max(needed, whole_above(round / pace_ms)), model_.micro_batches());
    counts_[s] = std::min(choice.cap, needed);
    return pace_ms * std::max(1.0, static_cast<double>(needed) / choice.cap);
}

// From the last stage up, since what a stage needs in flight depends on those after it.
void LayoutEstimator::choose_stages(const Layout& layout) {
    const std::size_t count = layout.devices.size();
    chosen_.resize(count);
    pace_.assign(count, {});
    counts_.assign(count, 1);
    double pace_ms = 0;
    for (std::size_t s = count; s-- > 0;) {
        const int begin = s == 0 ? 0 : layout.ends[s - 1];
        const int last = first_layer_[static_cast<std::size_t>(layout.ends[s])] - 1;
        if (s + 1 < count) pace_[s].travel_ms = 2 * travel_ms(layout, s, last);
        StageSpan span{layout.devices[s], first_layer_[static_cast<std::size_t>(begin)], last,
                       false};
        chosen_[s] = choice(span);
        double plain_ms = pace_with(chosen_[s], s, pace_ms);
        const bool tight = chosen_[s].missing > 0 || plain_ms > std::max(pace_ms, pace_[s].own_ms);
        if (tight && !schedule_.splits_backward) {
            span.recompute = true;
            const Choice again = choice(span);
            const double again_ms = pace_with(again, s, pace_ms);
            if (again.missing * kMisfit + again_ms < chosen_[s].missing * kMisfit + plain_ms) {
                chosen_[s] = again;
                plain_ms = again_ms;
            } else {
                plain_ms = pace_with(chosen_[s], s, pace_ms);
            }
        }
        pace_ms = plain_ms;
    }
}

std::vector<StageSpan> LayoutEstimator::stages(const Layout& layout) {
    choose_stages(layout);
    std::vector<StageSpan> out;
    for (const Choice& choice : chosen_) out.push_back(choice.span);
    return out;
}

Layout LayoutEstimator::layout(const std::vector<StageSpan>& stages) const {
    Layout out;
    for (const StageSpan& stage : stages) {
        const auto end = std::upper_bound(first_layer_.begin(), first_layer_.end(), stage.last);
        out.devices.push_back(stage.device);
        out.ends.push_back(static_cast<int>(end - first_layer_.begin()));
    }
    return out;
}

std::vector<StageSpan> LayoutEstimator::plain_stages(const Layout& layout) const {
    std::vector<StageSpan> out;
    int begin = 0;
    for (std::size_t s = 0; s < layout.devices.size(); ++s) {
        out.push_back({layout.devices[s], first_layer_[static_cast<std::size_t>(begin)],
                       first_layer_[static_cast<std::size_t>(layout.ends[s])] - 1, false});
        begin = layout.ends[s];
    }
    return out;
}

double LayoutEstimator::step_ms(const Layout& layout) {
    choose_stages(layout);
    const std::size_t count = chosen_.size();
    double missing = 0;
    caps_.resize(count);
    int cap = model_.micro_batches();
    for (std::size_t s = 0; s < count; ++s) {
        missing += chosen_[s].missing;
        caps_[s] = cap = std::min(cap, chosen_[s].cap);
    }
    if (missing > 0) return kMisfit * (1 + missing);
    if (model_.is_graph()) return graph_step_ms();
    if (schedule_.paced()) least_pace_ms(pace_, caps_, model_.micro_batches(), counts_);
    return step_at_counts(layout);
}

// What each stage waits for depends on all cuts, so no sum over neighbours says it; the bounds are
// mostly near.
double LayoutEstimator::graph_step_ms() {
    std::vector<StageSpan> stages;
    for (const Choice& choice : chosen_) stages.push_back(choice.span);
    model_.pipeline_into(stages, costs_);
    const double bound = graph_bound_ms(
        costs_, schedule_.splits_backward ? BackwardKind::kSplit : BackwardKind::kWhole);
    return schedule_.one_f_one_b ? std::max(bound, in_flight_bound_ms(costs_, caps_)) : bound;
}

// With counts_ in flight, unless the schedule is not paced.
double LayoutEstimator::step_at_counts(const Layout& layout) const {
    const std::size_t count = chosen_.size();
    const double m = model_.micro_batches();
    const int portal = static_cast<int>(model_.cluster().portal);
    double way = model_.output_ms(-1, portal, layout.devices[0]);
    double head = way + model_.latency_ms(portal, layout.devices[0]);
    double tail = 0;
    double step = m * way;
    for (std::size_t s = 0; s < count; ++s) {
        const Choice& c = chosen_[s];
        step = std::max(step, head + m * pace_[s].own_ms + std::max(tail, m * c.rest_ms));
        double round = 0;
        for (std::size_t t = s; t < count; ++t) {
            round += pace_[t].own_ms;
            const int passing = counts_[s] - (t + 1 < count ? counts_[t] - 1 : 0);
            const int rounds = (model_.micro_batches() + passing - 1) / passing;
            if (schedule_.paced() && t > s) step = std::max(step, head + rounds * round + tail);
            round += pace_[t].travel_ms;
        }
        // The first gradient comes after one round; until then only forwards can run, at most as
        // many as memory holds.
        const int later = schedule_.paced() ? model_.micro_batches() - caps_[s] : 0;
        const double first_ms = head + round + tail;
        step = std::max(step, first_ms + (m - 1) * c.back_ms + later * c.forward_ms);
        step = std::max(step, first_ms + (m - 1) * c.forward_ms);
        if (s + 1 == count) break;
        const double travel = pace_[s].travel_ms / 2;
        way = travel - model_.latency_ms(c.span.device, layout.devices[s + 1]);
        step = std::max(step, head + c.forward_ms + m * way + c.back_ms + tail);
        head += c.forward_ms + travel;
        tail += c.back_ms + travel;
    }
    return step;
}

Layout least_largest_stage(const LayoutEstimator& estimator, const std::vector<int>& devices) {
    const int atoms = estimator.atoms();
    const auto width = static_cast<std::size_t>(atoms) + 1;
    const std::size_t count = devices.size();
    if (static_cast<int>(count) > atoms) return {};
    constexpr double kInfinite = std::numeric_limits<double>::infinity();
    std::vector<double> least(
        width, kInfinite);  // [j]: largest stage of the first s devices over atoms 0..j-1
    std::vector<std::vector<int>> cut(count, std::vector<int>(width, 0));
    least[0] = 0;
    for (std::size_t s = 0; s < count; ++s) {
        std::vector<double> next(width, kInfinite);
        for (int j = static_cast<int>(s) + 1; j <= atoms; ++j) {
            double& smallest = next[static_cast<std::size_t>(j)];
            for (int i = j - 1; i >= static_cast<int>(s); --i) {
                const double work = estimator.work_ms(devices[s], i, j);
                if (work > smallest) break;  // as is all that takes more atoms
                const double before = least[static_cast<std::size_t>(i)];
                if (before == kInfinite || std::max(before, work) > smallest) continue;
                smallest = std::max(before, work);
                cut[s][static_cast<std::size_t>(j)] = i;
            }
        }
        least = std::move(next);
    }
    Layout out{devices, std::vector<int>(count, atoms)};
    for (std::size_t s = count; s-- > 1;)
        out.ends[s - 1] = cut[s][static_cast<std::size_t>(out.ends[s])];
    return out;
}

Layout even_layout(const LayoutEstimator& estimator, const std::vector<int>& devices) {
    const int count = static_cast<int>(devices.size());
    if (count > estimator.atoms()) return {};
    Layout out{devices, {}};
    for (int s = 1; s <= count; ++s) out.ends.push_back(estimator.atoms() * s / count);
    return out;
}

}  // namespace ecopipe
