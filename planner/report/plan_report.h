#pragma once
// A plan in words that a person can act on.

#include <string>
#include <vector>

#include "domain/plan.h"
#include "planner/simulate/plan_timeline.h"

namespace ecopipe {

// A table of the stages, the prediction beside its two bounds and what binds, the single device
// beside the pipeline, the what-if rows, and how partial profiles were completed. `plan` has
// predictions; `played` is the same plan. Ends in a newline.
[[nodiscard]] std::string plan_report(const Plan& plan, const PlayedPlan& played,
                                      const std::vector<PredictedLayers>& predicted);

}  // namespace ecopipe
