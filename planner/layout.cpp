#include "planner/layout.h"

#include <algorithm>
#include <limits>

namespace ecopipe {
namespace {
constexpr double kMisfit = 1e12;  // ms: above every step, so that any layout that fits wins
}

LayoutEstimator::LayoutEstimator(const CostModel& model, ScheduleKind kind)
    : model_(model), kind_(kind) {
    for (int layer = 0; layer < model.layers(); ++layer)
        if (model.may_cut_before(layer)) first_layer_.push_back(layer);
    first_layer_.push_back(model.layers());
}

double LayoutEstimator::work_ms(int device, int begin, int end) const {
    const StageCost cost =
        model_.stage_cost({device, first_layer_[static_cast<std::size_t>(begin)],
                           first_layer_[static_cast<std::size_t>(end)] - 1, false});
    return cost.forward_ms + cost.backward_ms;
}

LayoutEstimator::Choice LayoutEstimator::choice(const StageSpan& span) const {
    const StageCost cost = model_.stage_cost(span);
    const bool split = kind_ == ScheduleKind::kZbH1;
    Choice out{span,
               cost.forward_ms,
               split ? cost.input_gradient_ms : cost.backward_ms,
               split ? cost.weight_gradient_ms : 0,
               model_.in_flight_cap(span),
               0};
    const int needed = kind_ == ScheduleKind::kGpipe ? model_.micro_batches() : 1;
    if (out.cap < needed) {
        const double budget = std::max(1.0, model_.budget_bytes(span.device));
        out.missing = std::max(1e-9, model_.stage_memory(span).peak(needed) / budget - 1);
        out.cap = needed;
    }
    return out;
}

// From the last stage up, since a stage's round trip holds those after it.
void LayoutEstimator::choose_stages(const Layout& layout) {
    const std::size_t count = layout.devices.size();
    chosen_.resize(count);
    const int m = model_.micro_batches();
    double beyond = 0;
    for (std::size_t s = count; s-- > 0;) {
        const int begin = s == 0 ? 0 : layout.ends[s - 1];
        const int last = first_layer_[static_cast<std::size_t>(layout.ends[s])] - 1;
        StageSpan span{layout.devices[s], first_layer_[static_cast<std::size_t>(begin)], last,
                       false};
        Choice best = choice(span);
        const int wanted = std::min(m, 2 * static_cast<int>(count - s) - 1);
        if (kind_ != ScheduleKind::kZbH1 && (best.cap < wanted || best.missing > 0)) {
            span.recompute = true;
            const Choice again = choice(span);
            const auto pace = [&](const Choice& c) {
                const double own = c.forward_ms + c.back_ms;
                return c.missing * kMisfit + std::max(own, (own + beyond) / std::min(c.cap, m));
            };
            if (pace(again) < pace(best)) best = again;
        }
        chosen_[s] = best;
        if (s == 0) break;
        beyond += best.forward_ms + best.back_ms +
                  2 * (model_.output_ms(span.first - 1, layout.devices[s - 1], span.device) +
                       model_.latency_ms(layout.devices[s - 1], span.device));
    }
}

std::vector<StageSpan> LayoutEstimator::stages(const Layout& layout) {
    choose_stages(layout);
    std::vector<StageSpan> out;
    for (const Choice& choice : chosen_) out.push_back(choice.span);
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
    const double m = model_.micro_batches();
    double missing = 0;
    double round = 0;  // of stage s, found from the whole by taking away what lies before it
    for (std::size_t s = 0; s < count; ++s) {
        missing += chosen_[s].missing;
        round += chosen_[s].forward_ms + chosen_[s].back_ms;
        if (s == 0) continue;
        const int from = layout.devices[s - 1];
        const int to = layout.devices[s];
        round += 2 * (model_.output_ms(chosen_[s].span.first - 1, from, to) +
                      model_.latency_ms(from, to));
    }
    if (missing > 0) return kMisfit * (1 + missing);
    const int portal = static_cast<int>(model_.cluster().portal);
    double way = model_.output_ms(-1, portal, layout.devices[0]);
    double head = way + model_.latency_ms(portal, layout.devices[0]);
    double pace = way;
    double tail = 0;
    double step = m * way + round;
    int cap = model_.micro_batches();
    for (std::size_t s = 0; s < count; ++s) {
        const Choice& c = chosen_[s];
        cap = std::min(cap, c.cap);
        const double own = c.forward_ms + c.back_ms;
        pace = std::max(own, round / cap);
        step = std::max(step, head + m * pace + std::max(tail, m * c.rest_ms));
        if (s + 1 == count) break;
        const int next = layout.devices[s + 1];
        way = model_.output_ms(c.span.last, c.span.device, next);
        const double travel = way + model_.latency_ms(c.span.device, next);
        step =
            std::max(step, head + c.forward_ms + m * way + (round - own) - way + c.back_ms + tail);
        head += c.forward_ms + travel;
        tail += c.back_ms + travel;
        round -= own + 2 * travel;
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
        for (int j = static_cast<int>(s) + 1; j <= atoms; ++j)
            for (int i = static_cast<int>(s); i < j; ++i) {
                const double before = least[static_cast<std::size_t>(i)];
                if (before == kInfinite) continue;
                const double largest = std::max(before, estimator.work_ms(devices[s], i, j));
                if (largest < next[static_cast<std::size_t>(j)]) {
                    next[static_cast<std::size_t>(j)] = largest;
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
