#pragma once
// Branch and bound over every cut, device order, device subset and recomputation.
//
// The problem: a good plan does not say whether there is a better one. Trying all of them would,
// but there are too many. Most are hopeless long before their last stage is placed, though: the
// first stages take so long, or leave so much, that no end can make up for it. So pipelines are
// built stage by stage; at each, a bound says how short the step can still become, and where that
// is no better than the best known nothing that begins so is tried (Land and Doig, "An automatic
// method of solving discrete programming problems", 1960). The better the plan it begins with, the
// more falls away: so a short local search goes first (schedule_search.h).

#include <cstdint>

#include "planner/search/arrangement.h"

namespace ecopipe {

// Improves `appraiser`'s best until no arrangement can be better, or until it has done `work_max`
// (Appraiser::work). True when the search ended by itself: the best is then optimal, given the
// in-flight counts that `vectors_max` allows. A branch is cut when DESIGN's bound on the stages
// placed so far, with the rest of the layers spread over the rest of the devices, reaches the best;
// of a graph that on the stages placed, or that on the rest, which may run beside them.
// Depth-first, stages in pipeline order, devices in the cluster file's order.
bool search_exhaustively(Appraiser& appraiser, int vectors_max, std::uint64_t work_max);

}  // namespace ecopipe
