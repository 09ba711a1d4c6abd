#include <algorithm>
#include <iterator>

#include "planner/schedule/schedule.h"

namespace ecopipe {

int peak_in_flight(const ActionList& actions) {
    int alive = 0;
    int peak = 0;
    for (const Action& action : actions) {
        if (action.kind == ActionKind::kForward) peak = std::max(peak, ++alive);
        if (action.kind == ActionKind::kBackward || action.kind == ActionKind::kWeightGradient)
            --alive;
    }
    return peak;
}

ActionList first_micro_batches(const ActionList& actions, int micro_batches) {
    ActionList out;
    std::copy_if(actions.begin(), actions.end(), std::back_inserter(out),
                 [&](const Action& action) { return action.micro_batch < micro_batches; });
    return out;
}

}  // namespace ecopipe
