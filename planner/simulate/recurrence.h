#pragma once
// The step time of a pipeline whose transfers never meet, many times faster than the event
// simulator: the search runs it a million times. Each action and transfer is touched once, without
// a queue.

#include <vector>

#include "planner/cost/pipeline_costs.h"

namespace ecopipe {

// True when the recurrence computes what `simulate` does for lists whose forwards and whose
// gradients are each in micro-batch order: one stage a device and no resource that two cuts or
// directions share, but the link over which a portal at stage 1 sends inputs before gradients; of a
// graph, those over which the portal sends inputs before what its own stage has for the same one.
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
    // What leaves or comes to a stage of a graph over one edge.
    struct Way {
        int to = 0;
        Transfer transfer;
        double free_ms = 0;
    };
    void begin_chain(const PipelineCosts& costs);
    void begin_graph(const PipelineCosts& costs);
    static void read_edges(const PipelineCosts& costs, const std::vector<StageEdge>& edges,
                           std::vector<std::vector<Way>>& leaving, std::vector<double>& there_ms,
                           std::vector<int>& missing);
    bool run_graph_stage(const PipelineCosts& costs, const ActionList& list, std::size_t s);
    bool run_stage(const PipelineCosts& costs, const std::vector<const ActionList*>& lists,
                   std::size_t s);

    std::vector<Stage> stages_;
    std::vector<double> activation_ms_;  // [stage][micro-batch]: when the input is there
    std::vector<double> gradient_ms_;
    // Of a graph: what leaves each stage, and how much of each input is missing.
    std::vector<std::vector<Way>> values_, gradients_;
    std::vector<int> missing_values_, missing_gradients_;
};

}  // namespace ecopipe
