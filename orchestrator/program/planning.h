#pragma once
// From a cluster file (or a plan by hand) and a model to the plan in force.

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "domain/plan.h"
#include "orchestrator/program/train_options.h"
#include "planner/cost/cluster.h"
#include "planner/cost/model_profile.h"
#include "stage_runtime/engine/model/models.h"

namespace ecopipe {

// Refuses a plan for another model or layer count, and flags that contradict it, with both values.
// A flag that was not given takes the plan's value.
[[nodiscard]] Result<void> adopt_plan(const Plan& plan, const ModelSpec& spec,
                                      const ModelInfo& info, TrainOptions& options);

// Refuses (kUsage) a schedule that the planner can price but that would not train to the same bits:
// a slice's forwards, and its weight gradients, must come in micro-batch order.
[[nodiscard]] Result<void> check_executable(const Plan& plan);

// Predicts a plan that came from a file and refuses one that exceeds a device's memory. What the
// profiles cannot price is said and left unchecked.
[[nodiscard]] Result<void> price_plan(const Cluster& cluster,
                                      const std::vector<ModelProfile>& profiles, Plan& plan);

// The profiles of a cluster's devices: their own files (relative to the cluster file), and first,
// when some device has none, one measured here and now: at the micro-batch size of the run, or at
// several when the planner is to choose it. All are told what the run trains.
[[nodiscard]] Result<std::vector<ModelProfile>> gather_profiles(
    const Cluster& cluster, const std::string& cluster_file, const ModelSpec& spec,
    const ModelInfo& info, const Dataset& train, const TrainOptions& options);

// The fixed cost of one more micro-batch, forward and backward of the whole model, in ms: where the
// line through the two smallest measured sizes meets zero samples. Nothing with one size.
[[nodiscard]] std::optional<double> micro_batch_overhead_ms(const ModelProfile& profile);

// The cluster without its absent devices; the portal's own may be absent too, its links stay those
// of its place.
[[nodiscard]] Cluster present_part(const Cluster& cluster, const std::set<std::string>& present);

// A cluster for a plan that came without a file: its devices, no emulation.
[[nodiscard]] Cluster cluster_of_plan(const Plan& plan);

}  // namespace ecopipe
