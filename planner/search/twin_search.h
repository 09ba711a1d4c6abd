#pragma once
// Plans in which several devices hold a stage: data parallelism is one stage of all, a pipeline is
// one device a stage, and most clusters are best served by something in between.

#include <optional>
#include <string>

#include "core/result.h"
#include "domain/plan.h"
#include "planner/cost/cost_model.h"

namespace ecopipe {

struct TwinPlans {
    std::optional<Plan> best;                // with twins, as simulated
    double step_ms = 0;                      // its
    std::optional<double> data_parallel_ms;  // the best with one stage of two devices or more
};

// Groups of devices in layer order are changed as long as that pays: a cut moves, a device joins,
// leaves or changes its stage or place, two stages become one, one becomes two. Each state is
// simulated whole, sums included. It begins with data parallelism over the fastest two, three, ...
// devices, with `pipeline` (the best without twins) with two stages made one, and with all ways to
// part up to four devices into stages, or two groups of more by speed. A stage's sum blocks go to
// its devices so that the last is done first, and are handed over where that pays.
// Memory is kept: who has too little recomputes, or the state is no plan. Of small chains on small
// clusters all groups that may be better are looked at (twin_groups.h), as far as the effort goes.
// `schedule` is the name of one without slices,
// or `auto`: 1f1b, and for the best plan those that split the backward. Deterministic; about as
// many simulations as `effort` says, in thousands. Pure.
[[nodiscard]] TwinPlans search_with_twins(const CostModel& model, const Plan& pipeline,
                                          int sum_blocks, double effort,
                                          const std::string& schedule);

}  // namespace ecopipe
