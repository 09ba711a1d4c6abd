#pragma once
// What a plan's devices take in memory, moment by moment of a played step: what INTERFACES' formula
// bounds, use by use.
//
// The order of a device's actions says which micro-batches it holds; the timeline, which tensors
// have come before they are needed and which have not left yet. Memory to receive into is used
// again and never given back within a run (buffer_pool.h), so what arrives counts with the most
// that was ever there at once, size by size.

#include <vector>

#include "core/memory_use.h"
#include "domain/plan.h"
#include "planner/simulate/plan_timeline.h"

namespace ecopipe {

// Of each of `played.lists`, at the moment of the step when it takes most.
[[nodiscard]] std::vector<MemoryByUse> step_memory(const PlayedPlan& played, const Plan& plan);

}  // namespace ecopipe
