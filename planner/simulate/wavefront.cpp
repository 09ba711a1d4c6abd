#include "planner/simulate/wavefront.h"

#include <algorithm>

namespace ecopipe {
namespace {
constexpr int kTicksUnchecked = 4;  // between looks at the limit: a look costs half a tick
}

// B(tick - K) on every stage that has one, the last stage first. Its gradient is there: K does not
// increase, so the next stage did that micro-batch at this tick or before.
void Wavefront::backwards(std::span<const WaveStage> stages, int micro_batches, int tick) {
    const auto m = static_cast<std::size_t>(micro_batches);
    for (std::size_t s = stages.size(); s-- > 0;) {
        const WaveStage& stage = stages[s];
        const int done = tick - stage.in_flight;
        if (done < 0) return;  // nor has any earlier stage
        if (done >= micro_batches) continue;
        State& state = states_[s];
        const std::size_t at = s * m + static_cast<std::size_t>(done);
        state.now_ms = std::max(state.now_ms, gradient_ms_[at]) + stage.backward_ms;
        if (s == 0) return;
        state.up_free_ms = std::max(state.up_free_ms, state.now_ms) + stage.up.occupy_ms;
        gradient_ms_[at - m] = state.up_free_ms + stage.up.latency_ms;
    }
}

// F(tick) on every stage, the first stage first.
void Wavefront::forwards(std::span<const WaveStage> stages, int micro_batches, int tick,
                         double arrival_ms) {
    const std::size_t last = stages.size() - 1;
    for (std::size_t s = 0; s < last; ++s) {
        const WaveStage& stage = stages[s];
        State& state = states_[s];
        state.now_ms = std::max(state.now_ms, arrival_ms) + stage.forward_ms;
        state.down_free_ms = std::max(state.down_free_ms, state.now_ms) + stage.down.occupy_ms;
        arrival_ms = state.down_free_ms + stage.down.latency_ms;
    }
    State& state = states_[last];
    state.now_ms = std::max(state.now_ms, arrival_ms) + stages[last].forward_ms;
    gradient_ms_[last * static_cast<std::size_t>(micro_batches) + static_cast<std::size_t>(tick)] =
        state.now_ms;
}

// Whether some stage's own work and the way up from it cannot end in time, after `tick`.
bool Wavefront::exceeds(std::span<const WaveStage> stages, int micro_batches, int tick,
                        double limit_ms) const {
    const int forwards = micro_batches - 1 - tick;
    for (std::size_t s = 0; s < stages.size(); ++s) {
        const int backwards = micro_batches - std::max(0, tick + 1 - stages[s].in_flight);
        if (states_[s].now_ms + forwards * stages[s].forward_ms +
                backwards * stages[s].backward_ms + states_[s].least_ms >
            limit_ms)
            return true;
    }
    return false;
}

double Wavefront::step_ms(std::span<const WaveStage> stages, int micro_batches,
                          const Transfer& feed, double up_taken_ms, double limit_ms) {
    states_.assign(stages.size(), State{});
    gradient_ms_.resize(stages.size() * static_cast<std::size_t>(micro_batches));
    if (stages.size() > 1) states_[1].up_free_ms = up_taken_ms;
    for (std::size_t s = 1; s < stages.size(); ++s)
        states_[s].least_ms = states_[s - 1].least_ms + stages[s].up.occupy_ms +
                              stages[s].up.latency_ms + stages[s - 1].backward_ms;
    // A bound that rounding may not turn against the step itself.
    const double held_ms = limit_ms * (1 + 1e-9);
    const int ticks = micro_batches + stages.front().in_flight;
    for (int tick = 0; tick < ticks; ++tick) {
        backwards(stages, micro_batches, tick);
        if (tick >= micro_batches) continue;
        forwards(stages, micro_batches, tick, (tick + 1) * feed.occupy_ms + feed.latency_ms);
        if (tick % kTicksUnchecked == kTicksUnchecked - 1 &&
            exceeds(stages, micro_batches, tick, held_ms)) {
            actions_ = 2 * stages.size() * static_cast<std::size_t>(tick + 1);
            return std::numeric_limits<double>::infinity();
        }
    }
    actions_ = 2 * stages.size() * static_cast<std::size_t>(micro_batches);
    double step = 0;
    for (std::size_t s = 0; s < stages.size(); ++s)
        step = std::max(step, states_[s].now_ms + stages[s].update_ms);
    return step;
}

}  // namespace ecopipe
