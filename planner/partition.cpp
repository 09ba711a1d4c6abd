#include "planner/partition.h"

#include <fmt/format.h>

#include <algorithm>

#include "planner/arrangement.h"
#include "planner/bounds.h"
#include "planner/cost_model.h"
#include "planner/partition_exhaustive.h"
#include "planner/simulator.h"

namespace ecopipe {
namespace {

constexpr int kVectorsMax = 64;
constexpr std::uint64_t kWorkMax = 400'000'000;

Plan as_plan(const Arrangement& found, const CostModel& model, const PlanRequest& request,
             const std::string& schedule, const std::string& model_name) {
    Plan plan;
    plan.model = model_name;
    plan.batch = request.batch;
    plan.micro_batches = model.micro_batches();
    plan.schedule = schedule;
    for (std::size_t s = 0; s < found.stages.size(); ++s) {
        const StageSpan& span = found.stages[s];
        StagePlan stage;
        stage.device = model.cluster().devices[static_cast<std::size_t>(span.device)].name;
        stage.first_layer = span.first;
        stage.last_layer = span.last;
        stage.in_flight = found.in_flight[s];
        stage.recompute = span.recompute;
        plan.stages.push_back(std::move(stage));
    }
    return plan;
}

std::optional<double> best_single_ms(const CostModel& model, ScheduleKind kind) {
    std::optional<double> best;
    for (int d = 0; d < model.devices(); ++d)
        for (const bool recompute : {false, true}) {
            Appraiser appraiser(model, kind);
            const Arrangement one =
                appraiser.appraise({{d, 0, model.layers() - 1, recompute}}, kVectorsMax);
            if (!one.stages.empty() && (!best || one.step_ms < *best)) best = one.step_ms;
        }
    return best;
}

Result<void> predict(const CostModel& model, Plan& plan, const std::string& source) {
    ECOPIPE_ASSIGN_OR_RETURN(const std::vector<StageSpan> spans, model.spans(plan, source));
    ECOPIPE_ASSIGN_OR_RETURN(const std::vector<ActionList> lists,
                             plan_actions(plan, plan.micro_batches));
    const BackwardKind backward = backward_kind(lists);
    if (backward != BackwardKind::kWhole && !model.has_split_backward())
        return fail(
            ExitCode::kBadFile,
            fmt::format(
                "{}: schedule: expected profiles with input_gradient_ms and weight_gradient_ms for "
                "'{}', found none",
                source, plan.schedule));
    const PipelineCosts costs = model.pipeline(plan, spans);
    const Timeline timeline = simulate(costs, lists);
    const Bound bound = pipeline_bound(costs, backward);
    const bool fill = costs.devices == costs.stage_count() && backward == BackwardKind::kWhole;
    plan.predicted = Prediction{timeline.step_ms,
                                model.control_ms(spans),
                                bound.ms,
                                bound.by,
                                cluster_bound_ms(model, backward, fill),
                                timeline.bubble_fraction};
    const bool gpipe = plan.schedule == "gpipe";
    for (std::size_t s = 0; s < spans.size(); ++s) {
        const int in_flight =
            gpipe ? plan.micro_batches : std::min(plan.stages[s].in_flight, plan.micro_batches);
        plan.stages[s].peak_bytes =
            static_cast<std::uint64_t>(model.stage_memory(spans[s]).peak(in_flight));
    }
    return {};
}

}  // namespace

Result<Plan> search_plan(const Cluster& cluster, const std::vector<ModelProfile>& profiles,
                         const PlanRequest& request) {
    ECOPIPE_ASSIGN_OR_RETURN(const ResolvedProfiles resolved, resolve_profiles(cluster, profiles));
    const int micro_batches =
        std::clamp(request.micro_batches == 0 ? 8 : request.micro_batches, 1, request.batch);
    ECOPIPE_ASSIGN_OR_RETURN(const CostModel model,
                             CostModel::make(cluster, resolved, request.batch, micro_batches));
    const ScheduleKind kind = request.schedule == "gpipe"   ? ScheduleKind::kGpipe
                              : request.schedule == "zb-h1" ? ScheduleKind::kZbH1
                                                            : ScheduleKind::kOneFOneB;
    Appraiser appraiser(model, kind);
    search_exhaustively(appraiser, kVectorsMax, kWorkMax);
    const Arrangement found = appraiser.finish(kVectorsMax);
    if (found.stages.empty())
        return fail(ExitCode::kBadFile, fmt::format("{}: memory is short", cluster.source));
    const std::string schedule = request.schedule == "auto" ? "1f1b" : request.schedule;
    Plan plan = as_plan(found, model, request, schedule, resolved.profiles.front().model);
    ECOPIPE_RETURN_IF_ERROR(predict(model, plan, "plan"));
    plan.single_device_ms = best_single_ms(model, kind);
    return plan;
}

Result<void> predict_plan(const Cluster& cluster, const std::vector<ModelProfile>& profiles,
                          Plan& plan) {
    ECOPIPE_ASSIGN_OR_RETURN(const ResolvedProfiles resolved, resolve_profiles(cluster, profiles));
    ECOPIPE_ASSIGN_OR_RETURN(const CostModel model,
                             CostModel::make(cluster, resolved, plan.batch, plan.micro_batches));
    ECOPIPE_RETURN_IF_ERROR(predict(model, plan, "plan"));
    plan.single_device_ms = best_single_ms(model, ScheduleKind::kOneFOneB);
    return {};
}

}  // namespace ecopipe
