#include "planner/search/partition.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/check.h"
#include "core/units.h"
#include "domain/limits.h"
#include "domain/sum_blocks.h"
#include "planner/schedule/plan_file.h"
#include "planner/schedule/registry.h"
#include "planner/schedule/schedule_check.h"
#include "planner/search/schedule_search.h"
#include "planner/search/twin_search.h"
#include "planner/simulate/bounds.h"
#include "planner/simulate/memory_frontier.h"
#include "planner/simulate/memory_play.h"
#include "planner/simulate/plan_timeline.h"

namespace ecopipe {
namespace {

constexpr int kCountsTried = 16;    // micro-batch counts of `auto`
constexpr int kCountsDeepened = 3;  // of them, those that get the whole effort
constexpr double kWorthwhile =
    0.99;  // what another schedule must bring the step to, to be chosen over 1f1b

// Which one's arrangement comes nearest when nothing fits: of those whose counts the lists decide,
// and of a user's own, 1f1b's is the one that needs least.
const Schedule& tightest(const std::string& name) {
    const Schedule* schedule = find_schedule(name);
    return schedule == nullptr || schedule->sliced() ? kOneFOneB : *schedule;
}

tl::unexpected<Error> no_split_times(const std::string& source, const std::string& schedule) {
    return fail(ExitCode::kBadFile, fmt::format("{}: schedule: expected profiles with "
                                                "input_gradient_ms and weight_gradient_ms of every "
                                                "layer for '{}', found none",
                                                source, schedule));
}

// Which memory is short and by how much, in the arrangement that misses least.
tl::unexpected<Error> nothing_fits(const CostModel& model, const PlanRequest& request) {
    const Schedule& schedule = tightest(request.schedule);
    const std::vector<StageSpan> stages = nearest_misfit(model, schedule);
    const int in_flight = schedule.holds_all() ? model.micro_batches() : 1;
    std::string shortages;
    // Segments are looked for where a stage is one slice and its backward whole.
    const Schedule* named = find_schedule(request.schedule);
    bool segments_would_fit = model.recomputation() == Recomputation::kStages && !request.actions &&
                              !schedule.splits_backward && (named == nullptr || !named->sliced());
    std::size_t first = 0;
    for (const StageSpan& stage : stages) {
        const double least = model.least_bytes(stage, in_flight);
        const double needed = stage.recompute && model.recomputation() != Recomputation::kStages
                                  ? least
                                  : model.stage_memory(stage).peak(in_flight);
        const double budget = std::max(0.0, model.budget_bytes(stage.device));
        if (needed <= budget) continue;
        segments_would_fit = segments_would_fit && least <= budget;
        if (shortages.empty()) first = static_cast<std::size_t>(stage.device);
        shortages += fmt::format(
            "{}{} needs {:.1f} MiB for layers {} to {} and has {:.1f}, {:.1f} MiB short",
            shortages.empty() ? "" : "; ",
            model.cluster().devices[static_cast<std::size_t>(stage.device)].name, needed / kMib,
            stage.first, stage.last, budget / kMib, (needed - budget) / kMib);
    }
    return fail(
        ExitCode::kBadFile,
        fmt::format("{}: devices[{}].memory_mib: expected memory for a plan with {} "
                    "micro-batches of {}, found "
                    "none that fits; in the nearest {}{}",
                    model.cluster().source, first, model.micro_batches(), model.micro_batch(),
                    shortages, segments_would_fit ? "; it fits with --recompute segments" : ""));
}

Result<GivenSchedule> given(const PlanRequest& request, const Cluster& cluster) {
    ECOPIPE_ASSIGN_OR_RETURN(const ScheduleFacts facts,
                             check_schedule(*request.actions, request.schedule));
    if (static_cast<std::size_t>(facts.place.devices()) > cluster.devices.size())
        return fail(ExitCode::kUsage,
                    fmt::format("--schedule: expected at most {} devices, as in {}, found {} in {}",
                                cluster.devices.size(), cluster.source, facts.place.devices(),
                                request.schedule));
    if (facts.micro_batches != request.micro_batches || facts.micro_batches > request.batch)
        return fail(ExitCode::kUsage, fmt::format("--schedule: expected the {} micro-batches of "
                                                  "{}, each with a sample of the batch of {}, "
                                                  "found {} micro-batches",
                                                  facts.micro_batches, request.schedule,
                                                  request.batch, request.micro_batches));
    return GivenSchedule{facts.place, request.actions->devices, facts.peak_in_flight,
                         facts.split_backward, false};
}

bool short_of_memory(const Arrangement& arrangement) {
    return arrangement.stages.empty() ||
           std::any_of(arrangement.stages.begin(), arrangement.stages.end(),
                       [](const StageSpan& stage) { return stage.recompute; });
}

// 1f1b, or another schedule when it is clearly faster. Together they take `effort`, and half as
// much again where memory is short.
Found search_any(const CostModel& model, double effort) {
    const bool may_split = model.has_split_backward();
    Found best = search_whole(model, kOneFOneB, effort * (may_split ? 0.45 : 0.8));
    const double limit_ms = best.arrangement.step_ms * kWorthwhile;
    Found interleaved = search_sliced(model, kInterleaved, best.arrangement, effort * 0.2);
    if (interleaved.arrangement.step_ms < limit_ms) best = std::move(interleaved);
    if (!may_split) return best;
    Found split = search_whole(model, kZbH1, effort * 0.35);
    if (split.arrangement.step_ms < limit_ms && better(split.arrangement, best.arrangement))
        best = std::move(split);
    // Those that keep less recompute nothing, and so give a device no frontier to adapt along.
    if (!short_of_memory(best.arrangement) || model.recomputation() == Recomputation::kAdaptive)
        return best;
    for (const Schedule* frugal : {&kVHalf, &kVMin}) {
        Found folded = search_sliced(model, *frugal, {}, effort * 0.25);
        if (folded.arrangement.step_ms < limit_ms && better(folded.arrangement, best.arrangement))
            best = std::move(folded);
    }
    return best;
}

Result<Found> search_model(const CostModel& model, const PlanRequest& request, double effort) {
    if (request.actions) {
        ECOPIPE_ASSIGN_OR_RETURN(const GivenSchedule schedule, given(request, model.cluster()));
        if (schedule.split_backward && !model.has_split_backward())
            return no_split_times(model.cluster().source, request.schedule);
        return search_own(model, request.schedule, schedule, effort);
    }
    if (request.schedule == kAutoSchedule) return search_any(model, effort);
    const Schedule* schedule = find_schedule(request.schedule);
    if (schedule == nullptr) return unknown_schedule(request.schedule);
    if (schedule->splits_backward && !model.has_split_backward())
        return no_split_times(model.cluster().source, request.schedule);
    return schedule->sliced() ? search_sliced(model, *schedule, {}, effort)
                              : search_whole(model, *schedule, effort);
}

// The fewest micro-batches of each size ceil(batch / M), thinned evenly to kCountsTried.
std::vector<int> count_candidates(int batch) {
    std::set<int> counts;
    for (int m = 1; m <= std::min(batch, kMicroBatchMax);) {
        counts.insert(m);
        const int size = (batch + m - 1) / m;
        m = size == 1
                ? batch + 1
                : (batch + size - 2) / (size - 1);  // the first count of the next smaller size
    }
    return {counts.begin(), counts.end()};
}

struct Trial {
    CostModel model;
    Found found;
};

// The models of all micro-batch counts that `request` allows; the error of the last when none is
// within what was measured.
Result<std::vector<CostModel>> candidate_models(const Cluster& cluster,
                                                const ResolvedProfiles& resolved,
                                                const PlanRequest& request) {
    std::vector<CostModel> out;
    const auto add = [&](int micro_batches) -> Result<void> {
        ECOPIPE_ASSIGN_OR_RETURN(
            CostModel model,
            CostModel::make(cluster, resolved, request.batch, micro_batches,
                            std::max(1, request.sum_blocks), request.recomputation));
        out.push_back(std::move(model));
        return {};
    };
    if (request.micro_batches != 0) {
        ECOPIPE_RETURN_IF_ERROR(add(std::min(request.micro_batches, request.batch)));
        return out;
    }
    std::vector<int> counts = count_candidates(request.batch);
    std::erase_if(counts, [&](int m) {
        return m < request.sum_blocks || !size_is_measured(resolved, (request.batch + m - 1) / m);
    });
    if (counts.empty()) {
        // The nearest size makes the best advice.
        const int sizes_max = largest_measured(resolved);
        const int m = (request.batch + sizes_max - 1) / sizes_max;
        ECOPIPE_RETURN_IF_ERROR(add(std::clamp(m, 1, request.batch)));
        return out;
    }
    const std::size_t tried = std::min<std::size_t>(counts.size(), kCountsTried);
    for (std::size_t i = 0; i < tried; ++i) {
        const std::size_t at = tried == 1 ? 0 : i * (counts.size() - 1) / (tried - 1);
        ECOPIPE_RETURN_IF_ERROR(add(counts[at]));
    }
    return out;
}

// Every candidate quickly, then the best few with the whole effort between them; the best first.
Result<std::vector<Trial>> search_counts(std::vector<CostModel> models,
                                         const PlanRequest& request) {
    std::vector<Trial> trials;
    const auto count = static_cast<double>(models.size());
    const double quick = models.size() == 1 ? 1 : 0.4 / count;
    for (CostModel& model : models) {
        ECOPIPE_ASSIGN_OR_RETURN(Found found, search_model(model, request, request.effort * quick));
        trials.push_back({std::move(model), std::move(found)});
    }
    const auto shorter = [](const Trial& a, const Trial& b) {
        return better(a.found.arrangement, b.found.arrangement);
    };
    std::stable_sort(trials.begin(), trials.end(), shorter);
    const std::size_t deepened = std::min<std::size_t>(trials.size(), kCountsDeepened);
    for (std::size_t i = 0; trials.size() > 1 && i < deepened; ++i) {
        if (trials[i].found.optimal && request.schedule != "auto") continue;
        ECOPIPE_ASSIGN_OR_RETURN(
            Found found, search_model(trials[i].model, request,
                                      request.effort * 0.6 / static_cast<double>(deepened)));
        if (better(found.arrangement, trials[i].found.arrangement))
            trials[i].found = std::move(found);
    }
    std::stable_sort(trials.begin(), trials.end(), shorter);
    return trials;
}

Plan as_plan(const Found& found, const CostModel& model, const PlanRequest& request,
             const std::string& name) {
    Plan plan;
    plan.model = name;
    plan.batch = request.batch;
    plan.micro_batches = model.micro_batches();
    plan.schedule = found.schedule;
    plan.sum_blocks = std::max(1, request.sum_blocks);
    std::vector<int> devices;
    for (const StageSpan& span : found.arrangement.stages) devices.push_back(span.device);
    const Placement place = Placement::of(devices);
    for (std::size_t s = 0; s < found.arrangement.stages.size(); ++s) {
        const StageSpan& span = found.arrangement.stages[s];
        StagePlan stage;
        stage.device = model.cluster().devices[static_cast<std::size_t>(span.device)].name;
        stage.first_layer = span.first;
        stage.last_layer = span.last;
        stage.in_flight = found.arrangement.in_flight[s];
        if (span.recompute) stage.recomputed = {{span.first, span.last}};
        const auto device = static_cast<std::size_t>(place.device(static_cast<int>(s)));
        if (!found.actions.empty() && place.slice(static_cast<int>(s)) == 0)
            stage.actions = actions_csv(found.actions[device]);
        plan.stages.push_back(std::move(stage));
    }
    return plan;
}

// Nothing when no device holds the whole model.
std::optional<SingleDevice> best_single(const CostModel& model) {
    Appraiser appraiser(model, kOneFOneB);
    for (int d = 0; d < model.devices(); ++d)
        for (const bool recompute : {false, true})
            appraiser.appraise({{d, 0, model.layers() - 1, recompute}}, model.micro_batches());
    if (appraiser.best().stages.empty()) return std::nullopt;
    const int device = appraiser.best().stages.front().device;
    const Device& best = model.cluster().devices[static_cast<std::size_t>(device)];
    return SingleDevice{appraiser.best().step_ms, best.name, best.threads};
}

// The same over every thread count that some profile of a device was measured with.
Result<std::optional<SingleDevice>> best_single(const CostModel& model,
                                                const ResolvedProfiles& resolved, int batch) {
    std::optional<SingleDevice> best = best_single(model);
    for (const auto& [device, profile] : resolved.other_threads) {
        Cluster cluster = model.cluster();
        cluster.devices[device].threads = resolved.profiles[profile].threads;
        ResolvedProfiles other = resolved;
        other.of_device[device] = {profile, 1.0};
        ECOPIPE_ASSIGN_OR_RETURN(const CostModel at,
                                 CostModel::make(cluster, other, batch, model.micro_batches(),
                                                 model.sum_blocks(), model.recomputation()));
        const std::optional<SingleDevice> found = best_single(at);
        if (found && (!best || found->step_ms < best->step_ms)) best = found;
    }
    return best;
}

void note_peaks(const CostModel& model, const std::vector<StageSpan>& spans, Plan& plan) {
    const std::vector<double> peaks = model.peak_bytes(plan, spans);
    auto peak = peaks.begin();
    const auto note = [&](auto& holder) {
        holder.peak_bytes = static_cast<std::uint64_t>(std::ceil(*peak++));
    };
    for (StagePlan& stage : plan.stages) {
        note(stage);
        for (StageHolder& twin : stage.twins) note(twin);
    }
}

// Where a stage recomputes, no more of it than its device's memory asks for.
void recompute_least(const CostModel& model, Plan& plan) {
    const auto spans = model.spans(plan, "plan");
    ECOPIPE_CHECK(spans.has_value());
    const std::vector<double> peaks = model.peak_bytes(plan, *spans);
    std::map<int, double> used;  // by device
    for (std::size_t h = 0; h < peaks.size(); ++h) used[(*spans)[h].device] += peaks[h];
    const std::vector<HeldStage> held = held_stages(plan);
    std::size_t h = 0;
    const auto lessen = [&](auto& holder) {
        const std::size_t at = h++;
        const StageSpan& span = (*spans)[at];
        if (holder.recomputed.empty()) return;
        const int in_flight = model.in_flight_of(plan, held[at]);
        const auto own = [&] {
            return model.stage_memory(span, holder.recomputed).peak(in_flight);
        };
        double& taken = used[span.device];
        taken -= own();
        auto segments =
            model.segments_for(span, in_flight, model.budget_bytes(span.device) - taken);
        if (segments) holder.recomputed = std::move(*segments);
        taken += own();
    };
    for (StagePlan& stage : plan.stages) {
        lessen(stage);
        for (StageHolder& twin : stage.twins) lessen(twin);
    }
}

Result<void> predict(const CostModel& model, const ResolvedProfiles& resolved, Plan& plan,
                     const std::string& source) {
    ECOPIPE_ASSIGN_OR_RETURN(const PlayedPlan played, play_plan(model, plan, source));
    const BackwardKind backward = backward_kind(played.lists);
    const bool twins = has_twins(plan);
    const Bound bound =
        twins ? holders_bound(played.costs, played.lists) : pipeline_bound(played.costs, backward);
    const bool fill = played.costs.place.one_each() && backward == BackwardKind::kWhole;
    plan.predicted = Prediction{played.timeline.step_ms,
                                model.control_ms(played.spans),
                                bound.ms,
                                bound.by,
                                cluster_bound_ms(model, backward, fill, twins),
                                played.timeline.bubble_fraction};
    note_peaks(model, played.spans, plan);
    const std::vector<HeldStage> held = held_stages(plan);
    const std::vector<MemoryByUse> memory = step_memory(played, plan);
    plan.memory.clear();
    for (std::size_t d = 0; d < memory.size(); ++d) {
        const int first = played.costs.place.stage(static_cast<int>(d), 0);
        plan.memory[held[static_cast<std::size_t>(first)].holder.device] = memory[d];
    }
    ECOPIPE_ASSIGN_OR_RETURN(plan.single_device, best_single(model, resolved, plan.batch));
    return {};
}

// The plan that a search ends with, with all that is known of it.
Result<void> complete(const CostModel& model, const ResolvedProfiles& resolved,
                      const PlanRequest& request, Plan& plan) {
    recompute_least(model, plan);
    ECOPIPE_RETURN_IF_ERROR(predict(model, resolved, plan, "plan"));
    return request.recomputation == Recomputation::kAdaptive ? add_frontiers(model, plan)
                                                             : Result<void>();
}

constexpr int kBlocksTried = 16;
constexpr double kTwinsGain = 0.99;          // of the pipeline's step: below it twins are chosen
constexpr double kBlocksGain = 0.98;         // more blocks are worth this much
constexpr std::size_t kTwinCountsTried = 4;  // of micro-batches: the pipeline's best, and
constexpr int kFewMicroBatches = 4;          // all up to this, which data parallelism likes
constexpr std::size_t kTwinsDeepened = 2;    // of the counts of micro-batches and blocks

bool may_have_twins(const PlanRequest& request, const CostModel& model) {
    if (!request.twins || model.devices() < 2 || request.actions) return false;
    const Schedule* schedule = find_schedule(request.schedule);
    return schedule == nullptr ? request.schedule == kAutoSchedule : !schedule->sliced();
}

struct TwinTrial {
    const Trial* pipeline = nullptr;  // with as many micro-batches
    int blocks = 1;
    TwinPlans found;
};

// Every count of micro-batches and blocks quickly, then the best few with the whole effort between
// them; by blocks.
std::vector<TwinTrial> search_twin_counts(const std::vector<Trial>& pipelines,
                                          const PlanRequest& request, const std::string& name) {
    std::vector<TwinTrial> trials;
    for (std::size_t i = 0; i < pipelines.size(); ++i) {
        const Trial& pipeline = pipelines[i];
        const int micro_batches = pipeline.model.micro_batches();
        if (pipeline.found.arrangement.stages.empty()) continue;
        if (i >= kTwinCountsTried && micro_batches > kFewMicroBatches) continue;
        if (request.sum_blocks != 0) trials.push_back({&pipeline, request.sum_blocks, {}});
        const int most = std::min(micro_batches, kBlocksTried);
        for (int blocks = 2; request.sum_blocks == 0 && blocks <= most; blocks *= 2)
            trials.push_back({&pipeline, blocks, {}});
    }
    const auto search = [&](TwinTrial& trial, double effort) {
        TwinPlans found =
            search_with_twins(trial.pipeline->model,
                              as_plan(trial.pipeline->found, trial.pipeline->model, request, name),
                              trial.blocks, effort, request.schedule);
        if (!found.best || (trial.found.best && trial.found.step_ms <= found.step_ms)) return;
        trial.found = std::move(found);
    };
    const auto count = static_cast<double>(trials.size());
    for (TwinTrial& trial : trials)
        search(trial, request.effort * (trials.size() == 1 ? 1 : 0.4 / count));
    std::stable_sort(trials.begin(), trials.end(), [](const TwinTrial& a, const TwinTrial& b) {
        return a.found.best && (!b.found.best || a.found.step_ms < b.found.step_ms);
    });
    for (std::size_t i = 0; trials.size() > 1 && i < std::min(trials.size(), kTwinsDeepened); ++i)
        search(trials[i], request.effort * 0.6 / kTwinsDeepened);
    std::stable_sort(trials.begin(), trials.end(),
                     [](const TwinTrial& a, const TwinTrial& b) { return a.blocks < b.blocks; });
    return trials;
}

// Replaces the plan by one with twins if that is faster, and notes what it was weighed against.
Result<void> try_twins(const std::vector<Trial>& pipelines, const ResolvedProfiles& resolved,
                       const PlanRequest& request, Plan& plan) {
    const double pipeline_ms = plan.predicted->step_ms;
    std::optional<double> data_parallel_ms;
    const CostModel* model = nullptr;
    double best_ms = pipeline_ms * kTwinsGain;
    int blocks = 1;
    for (TwinTrial& trial : search_twin_counts(pipelines, request, plan.model)) {
        TwinPlans& found = trial.found;
        if (found.data_parallel_ms)
            data_parallel_ms = std::min(data_parallel_ms.value_or(*found.data_parallel_ms),
                                        *found.data_parallel_ms);
        const double least = trial.blocks > blocks && model != nullptr ? kBlocksGain : 1;
        if (!found.best || found.step_ms >= best_ms * least) continue;
        model = &trial.pipeline->model;
        best_ms = found.step_ms;
        blocks = trial.blocks;
        plan = std::move(*found.best);
    }
    if (model != nullptr) ECOPIPE_RETURN_IF_ERROR(complete(*model, resolved, request, plan));
    plan.pipeline_ms = pipeline_ms;
    plan.data_parallel_ms = data_parallel_ms;
    return {};
}

}  // namespace

Result<Plan> search_plan(const Cluster& cluster, const std::vector<ModelProfile>& profiles,
                         const PlanRequest& request) {
    if (request.batch < 1 || request.micro_batches < 0 || request.micro_batches > kMicroBatchMax)
        return fail(
            ExitCode::kUsage,
            fmt::format("--micro-batches: expected 1 to {} of a batch of at least 1, found {} "
                        "of {}",
                        kMicroBatchMax, request.micro_batches, request.batch));
    const int most =
        request.micro_batches == 0 ? request.batch : std::min(request.micro_batches, request.batch);
    if (request.sum_blocks != 0 &&
        (!is_sum_blocks(request.sum_blocks) || request.sum_blocks > most))
        return fail(ExitCode::kUsage,
                    fmt::format("--sum-blocks: expected a power of two, at most the micro-batches "
                                "({}), found {}",
                                most, request.sum_blocks));
    if (request.actions) ECOPIPE_RETURN_IF_ERROR(given(request, cluster));
    ECOPIPE_ASSIGN_OR_RETURN(const ResolvedProfiles resolved, resolve_profiles(cluster, profiles));
    ECOPIPE_ASSIGN_OR_RETURN(std::vector<CostModel> models,
                             candidate_models(cluster, resolved, request));
    ECOPIPE_ASSIGN_OR_RETURN(const std::vector<Trial> trials,
                             search_counts(std::move(models), request));
    const Trial& best = trials.front();
    if (best.found.arrangement.stages.empty()) return nothing_fits(best.model, request);
    Plan plan = as_plan(best.found, best.model, request, resolved.profiles.front().model);
    ECOPIPE_RETURN_IF_ERROR(complete(best.model, resolved, request, plan));
    if (request.sum_blocks != 1 && may_have_twins(request, best.model))
        ECOPIPE_RETURN_IF_ERROR(try_twins(trials, resolved, request, plan));
    return plan;
}

Result<void> predict_plan(const Cluster& cluster, const std::vector<ModelProfile>& profiles,
                          Plan& plan) {
    ECOPIPE_RETURN_IF_ERROR(check_plan(plan, "plan"));
    ECOPIPE_ASSIGN_OR_RETURN(const ResolvedProfiles resolved, resolve_profiles(cluster, profiles));
    ECOPIPE_ASSIGN_OR_RETURN(
        const CostModel model,
        CostModel::make(cluster, resolved, plan.batch, plan.micro_batches, plan.sum_blocks));
    return predict(model, resolved, plan, "plan");
}

}  // namespace ecopipe
