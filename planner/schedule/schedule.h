#pragma once
// Schedules as data: what each device does, in order, and what the planner must know of a schedule
// to choose stages and counts for it. One file a schedule, one line in registry.cpp; everything
// else (plans, search, simulation, execution, benchmark, recovery) goes by what is said here.
// docs/SCHEDULES.md describes those that there are, and their limits.

#include <string_view>

#include "domain/action.h"
#include "domain/placement.h"

namespace ecopipe {

// One device's place in a step. All counts are at least 1, 0 <= device < devices.
struct ScheduleShape {
    int micro_batches = 1;
    int device = 0;  // in pipeline order
    int devices = 1;
    int slices = 1;  // groups of layers on each device
    int in_flight = 1;
};

// How many micro-batches a stage holds at once, each with its stash.
enum class InFlightRule {
    kAll,       // every one of the step, whatever memory there is
    kChosen,    // at most ScheduleShape::in_flight, which the planner searches
    kByActions  // as many as the list has at its peak
};

// Where a schedule has its stages.
enum class Placing {
    kOneEach,  // one a device
    kCyclic,   // any number of slices on each, in turn: 0, 1, 2, 0, 1, 2
    kFolded    // two on each, there and back: 0, 1, 2, 2, 1, 0
};

struct Schedule {
    std::string_view name;
    // The device's list for a step. Pure. With another number of micro-batches than planned (an
    // epoch's last batch) it is asked again.
    ActionList (*actions)(const ScheduleShape& shape);
    InFlightRule in_flight = InFlightRule::kChosen;
    // The count that a search begins with for stage `stage` of `stages`, before memory and M limit
    // it; of kChosen.
    int (*usual_in_flight)(int stage, int stages) = nullptr;
    // Input and weight gradients are actions of their own: profiles must have their times, and
    // nothing is recomputed.
    bool splits_backward = false;
    Placing placing = Placing::kOneEach;
    // The list is one_f_one_b_actions with the counts in flight: the search prices such without
    // playing every action.
    bool one_f_one_b = false;

    [[nodiscard]] bool sliced() const { return placing != Placing::kOneEach; }
    // With `slices` on each device, where that is free.
    [[nodiscard]] Placement place(int devices, int slices = 1) const {
        if (placing == Placing::kFolded) return Placement::folded(devices);
        return Placement::cyclic(devices, placing == Placing::kCyclic ? slices : 1);
    }
    [[nodiscard]] bool holds_all() const { return in_flight == InFlightRule::kAll; }
    // One forward, one backward, with a count that is free: estimates by its pace (pace.h) hold.
    [[nodiscard]] bool paced() const { return one_f_one_b && !holds_all(); }
};

// At most `in_flight` forwards ahead of their backward: F0..F(K-1), B0 FK B1 FK+1 ..., then the
// remaining B.
[[nodiscard]] ActionList one_f_one_b_actions(int micro_batches, int in_flight);

// The most (micro-batch, slice) pairs that have had their forward but not yet the end of their
// backward.
[[nodiscard]] int peak_in_flight(const ActionList& actions);
// Without the actions of the micro-batches from `micro_batches` up: what is left is valid if the
// whole was.
[[nodiscard]] ActionList first_micro_batches(const ActionList& actions, int micro_batches);

}  // namespace ecopipe
