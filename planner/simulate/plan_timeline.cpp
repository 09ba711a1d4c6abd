#include "planner/simulate/plan_timeline.h"

#include <fmt/format.h>

#include "planner/schedule/plan_file.h"
#include "planner/simulate/bounds.h"

namespace ecopipe {

Result<PlayedPlan> play_plan(CostModel model, const Plan& plan, const std::string& source) {
    ECOPIPE_ASSIGN_OR_RETURN(std::vector<StageSpan> spans, model.spans(plan, source));
    ECOPIPE_ASSIGN_OR_RETURN(std::vector<ActionList> lists, plan_actions(plan, plan.micro_batches));
    if (backward_kind(lists) != BackwardKind::kWhole && !model.has_split_backward())
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: schedule: expected profiles with input_gradient_ms and "
                                "weight_gradient_ms of every "
                                "layer for '{}', found none",
                                source, plan.schedule));
    PipelineCosts costs = model.pipeline(plan, spans);
    Timeline timeline = simulate(costs, lists);
    return PlayedPlan{std::move(model), std::move(spans), std::move(costs), std::move(lists),
                      std::move(timeline)};
}

Result<PlayedPlan> play_plan(const Cluster& cluster, const std::vector<ModelProfile>& profiles,
                             const Plan& plan, const std::string& source) {
    ECOPIPE_RETURN_IF_ERROR(check_plan(plan, source));
    ECOPIPE_ASSIGN_OR_RETURN(const ResolvedProfiles resolved, resolve_profiles(cluster, profiles));
    ECOPIPE_ASSIGN_OR_RETURN(CostModel model, CostModel::make(cluster, resolved, plan.batch,
                                                              plan.micro_batches, plan.sum_blocks));
    return play_plan(std::move(model), plan, source);
}

}  // namespace ecopipe
