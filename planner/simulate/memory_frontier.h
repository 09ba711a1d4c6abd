#pragma once
// How a device may trade time for memory while its layers stay where they are: of each device of a
// plan the choices of segments to recompute that no other betters, from keeping everything down to
// the least memory, with the most that each takes as the plan is played (memory_play.h), should the
// device be somewhat quicker or slower than predicted.
//
// A stage moves along it while it runs (stage_runtime/stage/memory_control.h), when other programs
// want the memory or give it back, as Sage does with its operators (Gim and Ko, "Memory-efficient
// DNN training on mobile devices", MobiSys 2022): what is weighed is weighed beforehand, here.

#include "core/result.h"
#include "domain/plan.h"
#include "planner/cost/cost_model.h"

namespace ecopipe {

// Sets plan.frontiers. `model`: of the plan's batch and micro-batches. Where the gradients of
// inputs and weights are apart a frontier is one point. Errors: those of play_plan.
[[nodiscard]] Result<void> add_frontiers(const CostModel& model, Plan& plan);

}  // namespace ecopipe
