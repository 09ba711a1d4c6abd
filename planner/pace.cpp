#include "planner/pace.h"

#include <algorithm>
#include <cmath>

namespace ecopipe {

bool counts_at_pace(std::span<const PaceStage> stages, double pace_ms, std::span<const int> caps,
                    int micro_batches, std::vector<int>& counts) {
    const std::size_t count = stages.size();
    const double per_pace = 1 / pace_ms;
    counts.assign(count, 1);
    for (std::size_t s = count; s-- > 0;) {
        double round_ms = stages[s].own_ms;
        double needed = 1;
        for (std::size_t t = s + 1; t < count; ++t) {
            round_ms += stages[t - 1].travel_ms + stages[t].own_ms;
            needed = std::max(needed, counts[t] - 1 + std::ceil(round_ms * per_pace - 1e-9));
        }
        needed = std::max(needed, std::ceil(round_ms * per_pace - 1e-9));
        counts[s] = static_cast<int>(std::min(needed, static_cast<double>(micro_batches)));
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
