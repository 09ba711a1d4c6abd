#pragma once
// The steps of the local search: random small changes of a layout.

#include "core/random.h"
#include "planner/search/layout.h"

namespace ecopipe {

// Changes one cut, swaps or replaces devices, adds, drops or moves a stage. False, with `layout`
// untouched or still valid, when the drawn change is not possible. The result has no empty stage
// and no device twice.
bool move_randomly(Layout& layout, int devices, int atoms, Rng& rng);

// Swaps or moves devices of a permutation, or reverses a run; at least one of the first `used`
// takes part.
void move_order(std::vector<int>& order, std::size_t used, Rng& rng);

}  // namespace ecopipe
