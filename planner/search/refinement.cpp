#include "planner/search/refinement.h"

#include <algorithm>
#include <cmath>

#include "planner/search/layout_moves.h"

namespace ecopipe {
namespace {

constexpr double kHot = 0.004;  // of the step, at first and at last
constexpr double kCold = 0.001;
constexpr int kVectorsRefined = 16;       // in-flight vectors tried exhaustively
constexpr std::uint64_t kMoveCost = 100;  // of a move without its simulation, in actions

}  // namespace

// Recomputing buys counts: only where a stage falls short of what it should have in flight.
bool Refiner::should_recompute(const StageSpan& plain, int wished) const {
    const CostModel& model = appraiser_.model();
    const int cap = model.in_flight_cap(plain);
    if (cap >= wished || appraiser_.schedule().splits_backward) return false;
    StageSpan again = plain;
    again.recompute = true;
    return model.in_flight_cap(again) > cap;
}

// The stages of next_.layout: those that now_ has keep their recomputation.
void Refiner::respan() {
    next_.stages = atoms_.plain_stages(next_.layout);
    const std::size_t count = next_.stages.size();
    const bool same_count = now_.wished.size() == count;
    for (std::size_t s = 0; s < count; ++s) {
        StageSpan& span = next_.stages[s];
        const auto known =
            std::find_if(now_.stages.begin(), now_.stages.end(), [&](const StageSpan& other) {
                return other.device == span.device && other.first == span.first &&
                       other.last == span.last;
            });
        const int wished = same_count ? now_.wished[s] : static_cast<int>(2 * (count - s) - 1);
        span.recompute =
            known != now_.stages.end() ? known->recompute : should_recompute(span, wished);
    }
}

bool Refiner::change_count() {
    const std::size_t s = static_cast<std::size_t>(rng_.below(next_.wished.size()));
    const int by = 1 + static_cast<int>(rng_.below(2));
    const int wished = next_.wished[s] + (rng_.below(2) == 0 ? by : -by);
    if (wished < 1 || wished > appraiser_.model().micro_batches()) return false;
    next_.wished[s] = wished;
    for (std::size_t t = 0; t < s; ++t) next_.wished[t] = std::max(next_.wished[t], wished);
    for (std::size_t t = s + 1; t < next_.wished.size(); ++t)
        next_.wished[t] = std::min(next_.wished[t], wished);
    return true;
}

bool Refiner::change() {
    const std::uint64_t kind = rng_.below(16);
    if (kind < 2) return change_count();
    if (kind == 2) {
        StageSpan& span = next_.stages[static_cast<std::size_t>(rng_.below(next_.stages.size()))];
        span.recompute = !span.recompute;
        return true;
    }
    if (!move_randomly(next_.layout, appraiser_.model().devices(), atoms_.atoms(), rng_))
        return false;
    respan();
    return true;
}

Arrangement Refiner::refine(const Arrangement& start, std::uint64_t work) {
    Arrangement best = start;
    now_ = {atoms_.layout(start.stages), start.stages, start.in_flight, start.step_ms};
    const std::uint64_t begin = appraiser_.work();
    double heat = kHot;
    for (int step = 0; appraiser_.work() - begin < work; ++step) {
        if (step % 64 == 0)
            heat = kHot * std::pow(kCold / kHot, static_cast<double>(appraiser_.work() - begin) /
                                                     static_cast<double>(work));
        next_ = now_;
        appraiser_.add_work(kMoveCost);
        if (!change()) continue;
        const double limit_ms = now_.ms * (1 - heat * std::log(1 - rng_.uniform()));
        std::vector<int> counts = next_.wished;
        next_.ms = appraiser_.below_ms(next_.stages, counts, limit_ms);
        if (next_.ms > limit_ms) continue;
        if (next_.stages.size() != now_.stages.size()) next_.wished = counts;
        std::swap(now_, next_);
        if (now_.ms >= best.step_ms) continue;
        Arrangement found = appraiser_.appraise(now_.stages, kVectorsRefined);
        const Arrangement same{now_.stages, counts, now_.ms};
        if (better(same, found)) found = same;
        appraiser_.offer(found);
        now_.ms = found.step_ms;
        now_.wished = found.in_flight;
        best = std::move(found);
    }
    return best;
}

}  // namespace ecopipe
