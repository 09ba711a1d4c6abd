#pragma once
// What goes between the stages of a graph's pipeline: every value from the stage that makes it
// straight to those that use it, and the gradients back, as PlanIndex's StageWays has it. The
// search asks this of thousands of pipelines a second, so here are no names and no plan.

#include <vector>

#include "domain/plan_index.h"
#include "domain/value_graph.h"

namespace ecopipe {

// One stage as the search sees it: layers first..last of one device.
struct StageSpan {
    int device = 0;
    int first = 0;
    int last = 0;  // inclusive
    bool recompute = false;
};

// All that goes from one stage to another in a micro-batch, as one transfer.
struct StageLoad {
    int from = 0;  // a stage; -1: the portal
    int to = 0;
    double bytes = 0;
    double integer_bytes = 0;  // of them, those that no codec shortens
};

struct StageLoads {
    // By (from, to): inputs, and values from earlier to later stages. A value goes to a device
    // once, for the first of its stages that takes it. What stays on its device is there too.
    std::vector<StageLoad> values;
    std::vector<StageLoad> gradients;  // by (to, from): from later to earlier stages
};

// What waits at a stage of the values that come past other stages to it, with these counts in
// flight. Their maker has had the forward of so many micro-batches whose backward it waits for, and
// of them those wait here that have not had theirs: each that has is one of the stage's own, whose
// stash is no smaller. So the stage takes most when its own are as many as may be, and the rest
// waits. (Where nothing runs backward nobody waits: what comes from frozen layers, in a chain too,
// no count bounds.)
[[nodiscard]] double waiting_bytes(const std::vector<StageLoad>& skips, std::size_t stage,
                                   const std::vector<int>& in_flight);

class GraphWays {
  public:
    GraphWays() = default;  // of no graph
    // `bytes`: of each value, in a micro-batch.
    GraphWays(ValueGraph flow, std::vector<double> bytes);

    // `portal`: the device that has the inputs.
    [[nodiscard]] StageLoads loads(const std::vector<StageSpan>& stages, int portal) const;
    // The values that come past other stages to the one that takes them, where they wait for those.
    // By (from, to).
    [[nodiscard]] std::vector<StageLoad> skips(const std::vector<StageSpan>& stages) const;
    // What a slice takes from outside.
    [[nodiscard]] double entering_bytes(int first, int last) const;

  private:
    // A layer's use of a value. What enters a slice are the uses in it of values that were made,
    // and used last, before it.
    struct Use {
        int before = -1;  // the layer that used it before, or that made it
        double bytes = 0;
    };
    [[nodiscard]] int producer_of(std::size_t value, const std::vector<int>& stage_of) const;
    void find_users(std::size_t value, const std::vector<int>& stage_of, int producer,
                    std::vector<ValueUser>& users) const;

    ValueGraph flow_;
    std::vector<double> bytes_;
    std::vector<std::vector<Use>> uses_;  // of each layer
};

}  // namespace ecopipe
