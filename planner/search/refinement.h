#pragma once
// Simulated annealing under the simulator itself: the last part of the local search.
//
// The usual form simulates a change, and then draws whether one that is so much worse is taken.
// Here the draw comes first and gives the longest step that would be taken: the same chances, but a
// simulation may end as soon as it passes that limit, and a bound may spare it.

#include <cstdint>

#include "core/random.h"
#include "planner/search/arrangement.h"
#include "planner/search/layout.h"

namespace ecopipe {

// Changes arrangements in small random steps: a cut, the devices, a stage's recomputation or its
// in-flight count. Cuts, recomputation and counts are searched together, since what memory a stage
// frees is what its count may take.
class Refiner {
  public:
    Refiner(Appraiser& appraiser, const LayoutEstimator& atoms, Rng& rng)
        : appraiser_(appraiser), atoms_(atoms), rng_(rng) {}

    // The best arrangement met on the way from `start`, for about `work` of simulated actions; from
    // 0.4 % of the step down to 0.1 %.
    [[nodiscard]] Arrangement refine(const Arrangement& start, std::uint64_t work);

  private:
    struct State {
        Layout layout;
        std::vector<StageSpan> stages;
        std::vector<int> wished;  // in flight, before memory caps them
        double ms = 0;
    };
    [[nodiscard]] bool change();
    [[nodiscard]] bool change_count();
    void respan();
    [[nodiscard]] bool should_recompute(const StageSpan& plain, int wished) const;

    Appraiser& appraiser_;
    const LayoutEstimator& atoms_;
    Rng& rng_;
    State now_;
    State next_;
};

}  // namespace ecopipe
