#pragma once
// The step time of a pipeline whose transfers never meet, many times faster than the event
// simulator: the search runs it a million times. Each action and transfer is touched once, without
// a queue.

#include <vector>

#include "planner/cost/pipeline_costs.h"

namespace ecopipe {

// True when the recurrence computes what `simulate` does for lists whose forwards and whose
// gradients are each in micro-batch order: one stage a device and no resource that two cuts or
// directions share, but the link over which a portal at stage 1 sends inputs before gradients.
[[nodiscard]] bool recurrence_applies(const PipelineCosts& costs);

// True when the portal is stage 1, so that its inputs and its gradients leave over one direction.
// All inputs are ready at t = 0, so the gradients' turn comes after the last of them: an order
// known beforehand.
[[nodiscard]] bool feed_precedes_gradients(const PipelineCosts& costs);

// Keeps its scratch memory between calls. Not thread-safe.
class Recurrence {
  public:
    // `lists[s]`: the actions of stage s. Returns step_ms; a deadlock is our own bug.
    [[nodiscard]] double step_ms(const PipelineCosts& costs,
                                 const std::vector<const ActionList*>& lists);

  private:
    struct Stage {
        std::size_t next = 0;
        double now_ms = 0;           // end of its last action
        double forward_free_ms = 0;  // when its outgoing transfers end
        double backward_free_ms = 0;
    };
    bool run_stage(const PipelineCosts& costs, const std::vector<const ActionList*>& lists,
                   std::size_t s);

    std::vector<Stage> stages_;
    std::vector<double> activation_ms_;  // [stage][micro-batch]: when the input is there
    std::vector<double> gradient_ms_;
};

}  // namespace ecopipe
