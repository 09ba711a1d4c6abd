#pragma once
// Plans in which several devices hold one stage: who runs which micro-batches, in what order.
//
// Each holder of a stage runs the micro-batches of its own sum blocks, by the schedule's list for
// as many as these are; a sender looks up who has the micro-batch on the other side.

#include <string>
#include <vector>

#include "core/result.h"
#include "domain/action.h"
#include "domain/plan.h"

namespace ecopipe {

// What must hold besides the rules for all plans: every device once, every block of a stage owned
// by one of its holders, a named schedule without slices, and an order in which every action can
// run. Errors: kBadFile with `source` and the place.
[[nodiscard]] Result<void> check_holders(const Plan& plan, const std::string& source);

// In the order of PlanIndex::devices, of a plan that check_holders accepts. Every micro-batch
// stands once in the lists of a stage's holders.
[[nodiscard]] std::vector<ActionList> holder_actions(const Plan& plan, int micro_batches);

}  // namespace ecopipe
