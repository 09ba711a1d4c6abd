#pragma once
// Whether a plan fits the memory of its devices, by INTERFACES' formula.

#include <vector>

#include "domain/plan.h"
#include "planner/cost/cluster.h"
#include "planner/cost/model_profile.h"

namespace ecopipe {

// `plan` has passed predict_plan, so that every stage has its peak_bytes. Errors: kBadFile naming
// the first device whose stages need more than memory_mib less process_mib, and by how much.
[[nodiscard]] Result<void> check_memory(const Cluster& cluster,
                                        const std::vector<ModelProfile>& profiles,
                                        const Plan& plan);

}  // namespace ecopipe
