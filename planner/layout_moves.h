#pragma once
// The steps of the local search: random small changes of a layout.

#include "core/random.h"
#include "planner/layout.h"

namespace ecopipe {

// Changes one cut, swaps or replaces devices, adds, drops or moves a stage. False, with `layout`
// untouched or still valid, when the drawn change is not possible. The result has no empty stage
// and no device twice.
bool move_randomly(Layout& layout, int devices, int atoms, Rng& rng);

}  // namespace ecopipe
