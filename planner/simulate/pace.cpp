#include "planner/simulate/pace.h"

#include <algorithm>

namespace ecopipe {

int whole_above(double value) {
    const double held = std::min(value - 1e-9, 1e9);
    const int floor = static_cast<int>(held);
    return floor + (static_cast<double>(floor) < held ? 1 : 0);
}

bool counts_at_pace(std::span<const PaceStage> stages, double pace_ms, std::span<const int> caps,
                    int micro_batches, std::vector<int>& counts) {
    const std::size_t count = stages.size();
    const double per_pace = 1 / pace_ms;
    counts.assign(count, 1);
    for (std::size_t s = count; s-- > 0;) {
        double round_ms = stages[s].own_ms;
        int needed = 1;
        for (std::size_t t = s + 1; t < count; ++t) {
            round_ms += stages[t - 1].travel_ms + stages[t].own_ms;
            needed = std::max(needed, counts[t] - 1 + whole_above(round_ms * per_pace));
        }
        needed = std::max(needed, whole_above(round_ms * per_pace));
        counts[s] = std::min(needed, micro_batches);
        if (counts[s] > caps[s]) return false;
    }
    return true;
}

double least_pace_ms(std::span<const PaceStage> stages, std::span<const int> caps,
                     int micro_batches, std::vector<int>& counts) {
    double low = 0;
    double high = 0;  // every stage by itself: one micro-batch in flight
    for (const PaceStage& stage : stages) {
        low = std::max(low, stage.own_ms);
        high += stage.own_ms + stage.travel_ms;
    }
    if (low <= 0 || counts_at_pace(stages, low, caps, micro_batches, counts)) {
        if (low <= 0) counts.assign(stages.size(), 1);
        return low;
    }
    while (high - low > 1e-3 * low) {
        const double middle = (low + high) / 2;
        (counts_at_pace(stages, middle, caps, micro_batches, counts) ? high : low) = middle;
    }
    counts_at_pace(stages, high, caps, micro_batches, counts);
    return high;
}

}  // namespace ecopipe
