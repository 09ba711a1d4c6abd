#include "orchestrator/session/drift.h"

#include <algorithm>
#include <cmath>

#include "core/statistics.h"

namespace ecopipe {
namespace {

constexpr double kShorterAtLeast = 0.05;
constexpr double kGainOverCost = 1.5;

}  // namespace

std::optional<Drift> DriftDetector::step(const std::string& device, double busy_ms) {
    if (!(busy_ms > 0)) return std::nullopt;
    State& state = devices_[device];
    if (++state.seen <= options_.settle_steps) return std::nullopt;
    if (state.usual_ms == 0) {
        state.baseline.push_back(busy_ms);
        if (static_cast<int>(state.baseline.size()) == options_.baseline_steps)
            state.usual_ms = median(std::move(state.baseline));
        return std::nullopt;
    }
    const double ratio = busy_ms / state.usual_ms;
    const double away = std::clamp(std::log(ratio), -options_.clip, options_.clip);
    state.up = std::max(0.0, state.up + away - options_.slack);
    state.down = std::max(0.0, state.down - away - options_.slack);
    if (state.up == 0 && state.down == 0) {
        state.recent.clear();
        return std::nullopt;
    }
    state.recent.push_back(ratio);
    if (std::max(state.up, state.down) <= options_.threshold ||
        static_cast<int>(state.recent.size()) < options_.evidence_steps)
        return std::nullopt;
    const Drift drift{device, median(state.recent)};
    state = State{};
    return drift;
}

MoveVerdict weigh_move(const MoveOffer& offer) {
    MoveVerdict verdict;
    const double shorter = offer.current_step_ms - offer.candidate_step_ms;
    verdict.gain_ms = shorter * static_cast<double>(offer.remaining_steps);
    verdict.cost_ms = offer.fixed_ms +
                      (offer.slowest_mbps > 0 ? offer.bytes * 8 / (offer.slowest_mbps * 1000) : 0);
    verdict.pays = shorter > kShorterAtLeast * offer.current_step_ms &&
                   verdict.gain_ms > kGainOverCost * verdict.cost_ms;
    return verdict;
}

}  // namespace ecopipe
