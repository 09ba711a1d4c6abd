#pragma once
// A plan played through: what the pictures, the what-if rows and the report look at.

#include <vector>

#include "domain/plan.h"
#include "planner/cost/cluster.h"
#include "planner/cost/cost_model.h"
#include "planner/cost/model_profile.h"
#include "planner/simulate/simulator.h"

namespace ecopipe {

struct PlayedPlan {
    CostModel model;
    std::vector<StageSpan> spans;
    PipelineCosts costs;  // codecs included
    std::vector<ActionList> lists;
    Timeline timeline;
};

// Errors: kBadFile, in `source`, for a plan that does not belong to this model and cluster or that
// needs gradient times the profiles lack; those of resolve_profiles and CostModel::make.
[[nodiscard]] Result<PlayedPlan> play_plan(const Cluster& cluster,
                                           const std::vector<ModelProfile>& profiles,
                                           const Plan& plan, const std::string& source);
// The same with a cost model at hand, that of plan.batch and plan.micro_batches.
[[nodiscard]] Result<PlayedPlan> play_plan(CostModel model, const Plan& plan,
                                           const std::string& source);

}  // namespace ecopipe
