#pragma once
// How a model's layers may be dealt to groups of devices, each of which is a stage, and all the
// ways that there are.

#include <compare>
#include <functional>
#include <vector>

#include "planner/cost/cost_model.h"

namespace ecopipe {

struct TwinGroup {
    std::vector<int> devices;  // of the cluster
    int first = 0;             // layers
    int last = 0;
    // How many each has, none: as their speeds are. Whoever has most has the first blocks, of those
    // with as many whoever stands first.
    std::vector<int> blocks{};
    friend auto operator<=>(const TwinGroup&, const TwinGroup&) = default;
};
using TwinGroups = std::vector<TwinGroup>;

// Calls `look` with every way to deal a chain's layers to groups of which one has several devices:
// every choice and order of devices, every cut, every number of sum blocks for each. But for those
// that cannot take less than `limit_ms` says at the time, with backwards that are not split: a
// device's own work after the first micro-batch's way to it, or what is left on whoever is left.
// Until `look` returns false. Many: devices! x cuts. Pure.
void for_all_twin_groups(const CostModel& model, int sum_blocks,
                         const std::function<double()>& limit_ms,
                         const std::function<bool(const TwinGroups&)>& look);

}  // namespace ecopipe
