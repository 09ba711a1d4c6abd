#pragma once
// The search for schedules whose action lists are given beforehand: sliced ones, and a user's own.
//
// The problem: where a device has several stages, each waits for the others on it. The bounds and
// the beams that guide the other searches are of one stage a device. But here there is also
// less to choose: the lists fix the counts and how many devices there are. What is left, cuts and
// devices, is annealed under the simulator itself.

#include <cstdint>
#include <functional>
#include <vector>

#include "planner/schedule/schedule.h"
#include "planner/search/arrangement.h"

namespace ecopipe {

// One list a device.
struct GivenSchedule {
    Placement place;
    std::vector<ActionList> lists;
    std::vector<int> peak_in_flight;  // of each stage
    bool split_backward = false;
    bool from_portal = false;  // its first device is the portal's
};

struct SlicedArrangement {
    Arrangement arrangement;  // as the schedule places it; in_flight is the schedule's peak
    int devices = 0;
    std::uint64_t work = 0;  // that the search took: at least one simulation of every start
};

// The best cuts and devices for `schedule`: annealed like search_locally, under the event
// simulator. A device holds all its slices: their memory by the contract's formula, added up.
// `orders`: device orders to start from, besides the given and the speed order. No stages when
// nothing fits.
[[nodiscard]] SlicedArrangement search_given(const CostModel& model, const GivenSchedule& schedule,
                                             const std::vector<std::vector<int>>& orders,
                                             std::uint64_t work_max, std::uint64_t seed);

// What a sliced schedule gives for these counts.
[[nodiscard]] GivenSchedule given_schedule(const Schedule& schedule, int micro_batches, int devices,
                                           int slices);

}  // namespace ecopipe
