#pragma once
// From a cluster file (or a plan by hand) and a model to the plan in force.

#include <set>
#include <string>
#include <vector>

#include "orchestrator/train_options.h"
#include "planner/cluster.h"
#include "planner/model_profile.h"
#include "planner/plan.h"
#include "stage_runtime/model/model_spec.h"

namespace ecopipe {

// Refuses a plan for another model or layer count, and flags that contradict it, with both values.
// A flag that was not given takes the plan's value.
[[nodiscard]] Result<void> adopt_plan(const Plan& plan, const ModelSpec& spec,
                                      const ModelInfo& info, TrainOptions& options);

// Refuses (kUsage) what the planner can price but this version's stages cannot run.
[[nodiscard]] Result<void> check_executable(const Plan& plan);

// The profiles of a cluster's devices: their own files (relative to the cluster file), and first,
// when some device has none, one measured here and now.
[[nodiscard]] Result<std::vector<ModelProfile>> gather_profiles(const Cluster& cluster,
                                                                const std::string& cluster_file,
                                                                const ModelSpec& spec,
                                                                const ModelInfo& info,
                                                                const TrainOptions& options);

// The cluster without its absent devices; the portal's own may be absent too, its links stay those
// of its place.
[[nodiscard]] Cluster present_part(const Cluster& cluster, const std::set<std::string>& present);

// A cluster for a plan that came without a file: its devices, no emulation.
[[nodiscard]] Cluster cluster_of_plan(const Plan& plan);

}  // namespace ecopipe
