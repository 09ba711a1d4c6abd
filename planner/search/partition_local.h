#pragma once
// The search for models and clusters that are too large to try everything.
//
// The problem: the simulator is right but dear, and there is too much to simulate. What is quick to
// judge is judged wrong by several per cent: with an estimate alone the search ends in the wrong
// order of the wrong devices, the simulator alone looks at too few. So the quick means find
// regions, and the simulator decides within them. Taking every change for the better, and no other,
// would end where two things had to change together, as a cut and a count. Annealing also takes a
// change that is a little worse, ever more rarely (Kirkpatrick, Gelatt, Vecchi, "Optimization by
// simulated annealing", 1983).

#include <cstdint>

#include "planner/search/arrangement.h"

namespace ecopipe {

// Improves `appraiser`'s best for about `work_max` of work. It starts from single devices, even
// cuts and least-largest-stage cuts of the given and the speed order (so that the result is never
// worse than those), looks for good pipelines at large, and ends by annealing the best of them in
// small steps under the simulator (refinement.h). At large it builds pipelines from the last stage
// up (suffix_beam.h) for 1f1b, and anneals cuts, order and subset on LayoutEstimator's estimate for
// other schedules, of graphs, and where `work_max` is too little for beams or nothing fits yet.
// `seed` decides every draw: the same inputs give the same plan on every machine.
void search_locally(Appraiser& appraiser, std::uint64_t work_max, std::uint64_t seed);

// The stages that miss the least memory, found the same way.
[[nodiscard]] std::vector<StageSpan> least_misfit(const CostModel& model, const Schedule& schedule,
                                                  std::uint64_t work_max, std::uint64_t seed);

}  // namespace ecopipe
