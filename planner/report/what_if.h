#pragma once
// What a person could change, and what it would bring: every row is a plan searched anew.

#include <string>
#include <vector>

#include "planner/search/partition.h"

namespace ecopipe {

// Rows for the plan that `request` gave: its busiest three links and media at twice the speed, up
// to two of them with tensors sent as fp16 where that makes the step at least 1 % shorter, twice
// the memory on up to two devices where memory limits a stage, up to four devices (the portal
// stays, the least busy first) left out, and under 1f1b what other in-flight counts would make of
// the same cuts. The batch, micro-batch count and schedule stay. A link or memory row is never
// worse than the plan itself under the same change. Each row but the fp16 and in-flight ones costs
// a search of a small part of the usual effort.
inline constexpr std::size_t kWhatIfRowsMax = 14;
[[nodiscard]] Result<std::vector<WhatIf>> what_if_rows(const Cluster& cluster,
                                                       const std::vector<ModelProfile>& profiles,
                                                       const PlanRequest& request,
                                                       const Plan& plan);

// The cluster without one device that is not its portal.
[[nodiscard]] Cluster without_device(const Cluster& cluster, std::size_t device);

}  // namespace ecopipe
