#pragma once
// How fast a step could be at best, so that every prediction says how close it is.

#include <string>

#include "planner/cost/cost_model.h"
#include "planner/cost/pipeline_costs.h"

namespace ecopipe {

struct Bound {
    double ms = 0;
    std::string by;  // what binds: "stage 1 compute", "link hub-pi", "medium wifi"
};

enum class BackwardKind { kWhole, kSplit, kMixed };  // all B; all I and W; both in one schedule
[[nodiscard]] BackwardKind backward_kind(const std::vector<ActionList>& lists);

// DESIGN's bound on any schedule of this pipeline: for every device the time until its first input,
// its whole work, and what must follow its last backward upstream, updates included; and for every
// link or medium the same around its busy time. One micro-batch's whole way is part of the last
// stage's term. In-flight counts are no part of it: they explain a gap, they do not excuse it. With
// slices, a device's way in and out are those of its first slice (of a graph, the shortest of any
// slice). With I and W apart also DESIGN's split form; with both kinds mixed, the lesser of each.
// Of a graph the ways follow its values and gradients, the longest of several.
[[nodiscard]] Bound pipeline_bound(const PipelineCosts& costs, BackwardKind backward);

// pipeline_bound for one stage a device and whole backwards, but for resources that cuts share and
// for updates: what is left takes one pass. The local search asks it before each simulation.
[[nodiscard]] double quick_bound_ms(const PipelineCosts& costs);

// The same for a graph and either kind of backward; also when `costs` are those of its first stages
// alone, for any pipeline that begins with them: what more comes behind them takes nothing away of
// what they wait for and send. Never less with more layers in the last of them.
[[nodiscard]] double graph_bound_ms(const PipelineCosts& costs, BackwardKind backward);

// A bound for schedules with at most in_flight[s] micro-batches of stage s between their forward
// and the end of their backward, one stage a device, whole backwards: it goes round ceil(M / K)
// times; its first gradient comes after one round, and then all backwards and all but K forwards
// are still to do; and its last forward is followed by a round. Used to prune the search; what a
// plan reports is pipeline_bound, which K does not excuse.
[[nodiscard]] double in_flight_bound_ms(const PipelineCosts& costs,
                                        const std::vector<int>& in_flight);

// A bound over every partition of the model on this cluster, any device order and subset: the
// largest of
// - the layer that takes longest on the device that runs it fastest, times M;
// - all work over summed speeds; and for schedules with one stage a device and whole backwards
// (`fill`), the same with
//   the pipeline's filling and draining: the k-th stage waits for the work of those before it, so
//   with p_k the time of a micro-batch in it, p_0 + ... + p_(k-1) + M p_k <= T, which caps the work
//   done within T at T / M * sum of speed_k (1 - 1/M)^k with the speeds in falling order; not of a
//   graph, whose branches may begin together.
// Devices that cannot hold a single layer do not count. A device's speed is its best relative speed
// on any layer. Where several devices may hold a stage (`twins`), all work over summed speeds
// alone.
[[nodiscard]] double cluster_bound_ms(const CostModel& model, BackwardKind backward, bool fill,
                                      bool twins = false);

// Of a plan whose stages have twins: the most that a device computes in its list, its updates
// included.
[[nodiscard]] Bound holders_bound(const PipelineCosts& costs, const std::vector<ActionList>& lists);

}  // namespace ecopipe
