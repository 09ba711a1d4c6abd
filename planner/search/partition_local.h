#pragma once
// The search for models and clusters that are too large to try everything.

#include <cstdint>

#include "planner/search/arrangement.h"

namespace ecopipe {

// Improves `appraiser`'s best for about `work_max` of work. It starts from single devices, even
// cuts and least-largest-stage cuts of the given and the speed order (so that the result is never
// worse than those), looks for good pipelines at large, and ends by annealing the best of them in
// small steps under the simulator (refinement.h). At large it builds pipelines from the last stage
// up (suffix_beam.h) for 1f1b, and anneals cuts, order and subset on LayoutEstimator's estimate for
// other schedules, and where `work_max` is too little for beams or nothing fits yet. `seed` decides
// every draw: the same inputs give the same plan on every machine.
void search_locally(Appraiser& appraiser, std::uint64_t work_max, std::uint64_t seed);

// The stages that miss the least memory, found the same way.
[[nodiscard]] std::vector<StageSpan> least_misfit(const CostModel& model, const Schedule& schedule,
                                                  std::uint64_t work_max, std::uint64_t seed);

}  // namespace ecopipe
