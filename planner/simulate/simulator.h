#pragma once
// The event simulator: when every action and transfer of one step runs, exactly as INTERFACES' cost
// model says.
//
// A device runs its list strictly in order, each action as soon as the one before is done and its
// input has arrived: of a graph, all values and gradients that come to its stage. Transfers of one
// resource take turns in order of readiness; ties go to the earlier sending stage (the portal
// before all), then to forwards, then to the lower micro-batch, then to the earlier receiver.
// The step ends when each device has done its last action and the updates of its stages. This is
// the authority: recurrence.h computes the same step faster where no resource is shared.

#include <vector>

#include "planner/cost/pipeline_costs.h"

namespace ecopipe {

struct ActionSpan {
    int device = 0;
    int stage = 0;
    Action action;
    double start_ms = 0;
    double end_ms = 0;
};

struct TransferSpan {
    int resource = 0;
    int from_stage = 0;  // -1: the portal
    int to_stage = 0;
    int micro_batch = 0;
    double start_ms = 0;  // on the resource from start to end, there at arrival
    double end_ms = 0;
    double arrival_ms = 0;
};

struct Timeline {
    std::vector<ActionSpan> actions;      // by start
    std::vector<TransferSpan> transfers;  // by start
    std::vector<double> update_start_ms;  // of each device
    std::vector<double> device_end_ms;    // its updates included
    double step_ms = 0;
    double bubble_fraction = 0;  // of all devices' time in the step, what they idle
};

// `lists`: one a device, a valid schedule (check_schedule) of costs.micro_batches and costs.place.
// O(actions * log actions).
[[nodiscard]] Timeline simulate(const PipelineCosts& costs, const std::vector<ActionList>& lists);

}  // namespace ecopipe
