#pragma once
// Whether action lists are a schedule: every action once, none missing, each after what it needs,
// no deadlock.

#include <string>
#include <vector>

#include "planner/schedule/schedule_csv.h"

namespace ecopipe {

struct ScheduleFacts {
    Placement place;
    int micro_batches = 0;
    bool split_backward = false;      // some I and W
    std::vector<int> peak_in_flight;  // of each stage, in micro-batches
    int channel_capacity =
        0;  // least room of every channel, in tensors, with which the schedule ends
};

// Checks the lists of all devices against one another. A stage's forward needs the forward of the
// stage before, its backward (or input gradient) that of
// the stage after, its weight gradient its own input gradient. What passes this can also run where
// the stages form a graph: there a forward needs those of some stages before it, and a backward
// those of some after it, for which a chain's waits through all stages between. Errors: kBadFile
// with `source`, the list's place and the action. O(actions * log M).
[[nodiscard]] Result<ScheduleFacts> check_schedule(const ScheduleText& schedule,
                                                   const std::string& source);

}  // namespace ecopipe
