#pragma once
// The search for a plan: which layers on which devices, how many micro-batches in flight.
//
// The problem: cuts, order, subset, recomputation and in-flight counts make far more arrangements
// than can be tried, and none of them can be chosen by itself. What memory a cut leaves a stage
// caps its count; its count holds up its neighbours (pace.h). The usual answer, cuts with the least
// largest stage by a dynamic program (PipeDream, Narayanan et al., SOSP 2019), does not see that,
// nor the filling and draining, which are much of a step of few micro-batches. So what decides here
// is the simulated step, and the searches differ in what they simulate: whatever may be better
// where a bound leaves few enough (partition_exhaustive.h), else what looks promising
// (partition_local.h). The usual answers are among what they start from.

#include <string>
#include <vector>

#include "domain/plan.h"
#include "planner/cost/cluster.h"
#include "planner/cost/model_profile.h"
#include "planner/schedule/registry.h"
#include "planner/schedule/schedule_csv.h"

namespace ecopipe {

struct PlanRequest {
    int batch = 64;
    int micro_batches = 8;  // 0: choose
    // kAutoSchedule, one of the registry, or, with `actions`, the name of the user's own.
    std::string schedule = kAutoSchedule;
    std::optional<ScheduleText> actions;  // a valid schedule (read_own_schedule)
    double effort =
        1;  // how long to search, as a share of the usual; below 0.1 only the obvious is tried
    int sum_blocks = 1;  // the plan's; 0: as many as plan best, 1 where no stage has twins
    bool twins = true;   // several devices may hold a stage, where sum_blocks is not 1
    Recomputation recomputation = Recomputation::kStages;  // adaptive plans have frontiers
};

// kUsage for --schedule.
[[nodiscard]] tl::unexpected<Error> unknown_schedule(const std::string& name);

// Takes a --schedule flag's value: one of the names, or the path of a CSV file (docs/SCHEDULES.md)
// that is read and checked; then `micro_batches` becomes the file's when it is 0, and must be the
// file's otherwise (kUsage).
[[nodiscard]] Result<void> use_schedule(PlanRequest& request, const std::string& name_or_path);

// A --sum-blocks flag's value: 0 for auto. Errors: kUsage.
[[nodiscard]] Result<int> parse_sum_blocks(const std::string& text);

// A --recompute flag's value: stages, segments or adaptive. Errors: kUsage.
[[nodiscard]] Result<Recomputation> parse_recomputation(const std::string& text);

// The profiles of a run: those at `paths`, in order, then those that the cluster's `profile:` keys
// name, relative to the cluster's file and under the name of their device. Pure but for reading the
// files.
[[nodiscard]] Result<std::vector<ModelProfile>> read_profiles(
    const Cluster& cluster, const std::vector<std::string>& paths);
// kUsage where there are none.
[[nodiscard]] Result<std::vector<ModelProfile>> read_needed_profiles(
    const Cluster& cluster, const std::vector<std::string>& paths);

// The plan with the least simulated step time that fits every device's memory. `profiles`: the
// first serves every device that has none of its own.
//
// `auto` is 1f1b (gpipe is its K = M), unless zb-h1 (when the profiles have its gradient times) or
// interleaved is faster by more than 1 %: they send or run more pieces than the model prices. Where
// the best of these recomputes, or none fits, v-half and v-min are tried too. Cuts,
// order, subset and recomputation are searched by branch and bound where that ends within the
// effort, else by beams and annealing (partition_local.h; of a graph without beams, which know
// chains alone). The same inputs give the same plan on
// every machine: effort is counted in simulated actions, not in seconds.
//
// Errors: kBadFile naming the file's problem, or the memory that is short and by how much; kUsage
// for a request that cannot be met (an unknown schedule, more devices in a user's schedule than in
// the cluster). Pure. About 4 s at most on one core at effort 1, milliseconds for small problems.
[[nodiscard]] Result<Plan> search_plan(const Cluster& cluster,
                                       const std::vector<ModelProfile>& profiles,
                                       const PlanRequest& request);

// Fills plan.predicted, plan.single_device and every stage's peak_bytes for a plan that was
// written by hand, codecs and actions included. It does not refuse a plan for its memory:
// peak_bytes tells.
[[nodiscard]] Result<void> predict_plan(const Cluster& cluster,
                                        const std::vector<ModelProfile>& profiles, Plan& plan);

}  // namespace ecopipe
