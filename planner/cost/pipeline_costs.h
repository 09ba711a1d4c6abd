#pragma once
// What one step of a concrete pipeline costs: the input of the simulators and the bounds. Times in
// milliseconds, a micro-batch. No devices' names matter here, no layers, no bytes: cost_model.h
// makes these from a cluster and profiles.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "domain/action.h"
#include "domain/placement.h"

namespace ecopipe {

struct StageCost {
    double forward_ms = 0;
    double backward_ms = 0;  // recompute_ms included
    double recompute_ms = 0;
    double input_gradient_ms = 0;  // these two are used by split schedules alone
    double weight_gradient_ms = 0;
    double update_ms = 0;  // once a step; of a stage's twins with their handling of the sums
    // [k - 1]: what recompute_ms becomes with k in flight; null where it does not depend on that.
    const double* recompute_at{};
};

// What goes one way, between two stages or from the portal. A transfer occupies `resource` for
// occupy_ms and arrives latency_ms after it leaves it.
struct Transfer {
    double occupy_ms = 0;
    double latency_ms = 0;
    int resource =
        -1;  // index into PipelineCosts::resources; -1: both stages on one device, free and at once
};

// What transfers take turns on: one direction between two devices, or a medium with all links of
// its name.
struct Resource {
    std::string name;      // "link hub-pi", "medium wifi"
    int uses = 1;          // how many cuts, directions and feeds take turns on it
    std::size_t from = 0;  // devices of the cluster, when it is one direction between two
    std::size_t to = 0;
    std::string medium;  // else its medium
};

// Between two stages of a graph's pipeline, which need not be neighbours.
struct StageEdge {
    int from = 0;  // a stage; -1: the portal
    int to = 0;
    Transfer transfer;
    std::uint64_t blocks = ~0ULL;  // the sum blocks, a bit each, whose micro-batches go this way
};

// What one layer of a stage that several devices hold exchanges once a step (sum_blocks.h). A
// device's own part is final when so much of its last backward is over.
struct LayerSums {
    struct Part {
        int holder = 0;
        double share = 1;
        Transfer to_home;
        Transfer back;
    };
    int home = 0;
    double share = 1;  // the home's own
    std::vector<Part> parts;
};

struct PipelineCosts {
    int micro_batches = 1;
    Placement place;                // of the stages
    std::vector<StageCost> stages;  // in layer order
    // A chain's: each stage waits for its neighbours. Empty when the model is a graph.
    std::optional<Transfer>
        feed;  // of one micro-batch's input, portal to stage 0; none when the portal runs it
    std::vector<Transfer> forward;   // [k]: stage k to k + 1
    std::vector<Transfer> backward;  // [k]: stage k + 1 to k
    // A graph's: a stage's forward waits for all values that come to it, its backward for all
    // gradients; neighbours between which nothing goes do not wait for one another. Empty when it
    // is a chain.
    bool graph = false;
    std::vector<StageEdge> values;     // by (from, to): from earlier to later stages
    std::vector<StageEdge> gradients;  // by (to, from): from later to earlier ones
    // Where several devices hold a stage it is a graph, in which each of them is a stage of its own
    // with the micro-batches of its blocks.
    int sum_blocks = 1;
    std::vector<LayerSums> sums;
    std::vector<Resource> resources;
    std::vector<std::string> device_names;  // "" for plain numbers

    [[nodiscard]] int stage_count() const { return static_cast<int>(stages.size()); }
};

// The stage with so many micro-batches in flight.
[[nodiscard]] StageCost at_count(StageCost stage, int in_flight);
// Its backward with so much of it recomputed.
void recompute_for(double ms, StageCost& stage);
// Time of one action of a stage.
[[nodiscard]] double action_ms(const StageCost& stage, ActionKind kind);

// A pipeline from plain numbers, with a link of its own per cut and direction and no latency:
// stages[s] on device s. `forward_link_ms` and `backward_link_ms` have one entry fewer than
// `stages`.
[[nodiscard]] PipelineCosts plain_costs(int micro_batches, std::vector<StageCost> stages,
                                        const std::vector<double>& forward_link_ms,
                                        const std::vector<double>& backward_link_ms);

}  // namespace ecopipe
