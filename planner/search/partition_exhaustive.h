#pragma once
// Branch and bound over every cut, device order, device subset and recomputation.

#include <cstdint>

#include "planner/search/arrangement.h"

namespace ecopipe {

// Improves `appraiser`'s best until no arrangement can be better, or until it has done `work_max`
// (Appraiser::work). True when the search ended by itself: the best is then optimal, given the
// in-flight counts that `vectors_max` allows. A branch is cut when DESIGN's bound on the stages
// placed so far, with the rest of the layers spread over the rest of the devices, reaches the best.
// Depth-first, stages in pipeline order, devices in the cluster file's order.
bool search_exhaustively(Appraiser& appraiser, int vectors_max, std::uint64_t work_max);

}  // namespace ecopipe
