#pragma once
// How a model's layers may be dealt to groups of devices, each of which is a stage, and all the
// ways that there are.

#include <compare>
#include <functional>
#include <vector>

#include "planner/cost/cost_model.h"

namespace ecopipe {

struct TwinGroup {
    std::vector<int> devices;  // of the cluster; who stands first has the first blocks
    int first = 0;             // layers
    int last = 0;
    std::vector<int> blocks{};  // how many each has; none: as their speeds are
    friend auto operator<=>(const TwinGroup&, const TwinGroup&) = default;
};
using TwinGroups = std::vector<TwinGroup>;

// Calls `look` with all groups of several devices' plans, every order, cut and share of the sum
// blocks, but for those that cannot take less than `limit_ms` says at the time: a device's own work
// after the first micro-batch's way to it, or what is left on whoever is left. Until `look` returns
// false. Many: devices! x cuts. Pure.
void for_all_twin_groups(const CostModel& model, int sum_blocks,
                         const std::function<double()>& limit_ms,
                         const std::function<bool(const TwinGroups&)>& look);

}  // namespace ecopipe
