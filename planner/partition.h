#pragma once
// The search for a plan: which layers on which devices, how many micro-batches in flight.

#include <string>
#include <vector>

#include "planner/cluster.h"
#include "planner/model_profile.h"
#include "planner/plan.h"

namespace ecopipe {

struct PlanRequest {
    int batch = 64;
    int micro_batches = 8;  // 0: choose
    std::string schedule = "auto";
};

// The plan with the least simulated step time that fits every device's memory (INTERFACES, "The
// planner's cost model"). `profiles`: the first serves every device that has none of its own.
// Errors: kBadFile naming the file's problem or the memory that is short and by how much. Pure.
[[nodiscard]] Result<Plan> search_plan(const Cluster& cluster,
                                       const std::vector<ModelProfile>& profiles,
                                       const PlanRequest& request);

// Fills plan.predicted, plan.single_device_ms and every stage's peak_bytes for a plan that was
// written by hand.
[[nodiscard]] Result<void> predict_plan(const Cluster& cluster,
                                        const std::vector<ModelProfile>& profiles, Plan& plan);

}  // namespace ecopipe
