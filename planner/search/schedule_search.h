#pragma once
// The best arrangement of one model on one cluster, for one schedule and micro-batch count.
//
// Nobody can tell beforehand whether a problem is small enough to try everything: that depends on
// how soon the bound bites. So all three are done in turn: a short local search, for a plan that
// the bound can be compared with; branch and bound, which ends by itself on small problems and then
// has proven its answer; and where it did not end, a long local search.

#include <optional>
#include <string>

#include "planner/search/arrangement.h"
#include "planner/search/sliced_search.h"

namespace ecopipe {

struct Found {
    std::string schedule;
    Arrangement arrangement;          // no stages when nothing fits
    int devices = 0;                  // the stages are groups of this many devices in turn
    std::vector<ActionList> actions;  // a user's own lists; empty for a named schedule
    bool optimal = false;             // the search tried everything, given its in-flight counts
};

// One of the registry that is not sliced.
[[nodiscard]] Found search_whole(const CostModel& model, const Schedule& schedule, double effort);
// A sliced one: every device count, and 1 to 4 slices on each. `start`: an arrangement whose device
// order is tried too.
[[nodiscard]] Found search_sliced(const CostModel& model, const Schedule& schedule,
                                  const Arrangement& start, double effort);
// A user's own lists.
[[nodiscard]] Found search_own(const CostModel& model, const std::string& name,
                               const GivenSchedule& schedule, double effort);

// The stages that come nearest to fitting under `schedule` when nothing fits; for the error.
[[nodiscard]] std::vector<StageSpan> nearest_misfit(const CostModel& model,
                                                    const Schedule& schedule);

}  // namespace ecopipe
