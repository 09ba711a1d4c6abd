#pragma once
// INTERFACES' cost model: what any run of layers costs on any device of a cluster, and what a
// pipeline of them costs.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "domain/plan.h"
#include "planner/cost/cluster.h"
#include "planner/cost/graph_ways.h"
#include "planner/cost/model_profile.h"
#include "planner/cost/pipeline_costs.h"
#include "planner/cost/resolved_profiles.h"
#include "planner/cost/segment_table.h"
#include "planner/cost/segments.h"

namespace ecopipe {

// A stage's memory by the contract's formula, in bytes.
struct StageMemory {
    // Parameters, gradients, optimiser slots, buffers twice, the largest workspace, and one stash
    // when it recomputes.
    double fixed = 0;
    double in_flight = 0;  // of each micro-batch: its stash, or its input when it recomputes
    [[nodiscard]] double peak(int in_flight_count) const {
        return fixed + in_flight * in_flight_count;
    }
};

// While some layer of a stage runs, the one with which it takes most.
struct Working {
    double stash = 0;  // kept of the micro-batch
    double workspace = 0;
    double gradients = 0;  // sums that its backward has begun so far
    [[nodiscard]] double total() const { return stash + workspace + gradients; }
};

// What a stage takes, in bytes, by use; of a micro-batch unless it is the stage's.
struct StageBytes {
    double weights = 0;    // the stage's parameters, and its buffers twice
    double trainable = 0;  // the stage's: of its gradients' sums each takes as much
    double moments = 0;    // the stage's
    double held = 0;       // kept from its forward on: its stash, or what segments run again from
    double pending = 0;    // kept between the halves of a split backward
    // Of the one that runs, in a forward, or a whole backward; in a backward that is the first of
    // its sum, whose gradients come to be layer by layer; and in the first half of a split one,
    // which hardly gives anything back.
    Working forward, running, first_backward, input_gradient;
    double largest_workspace = 0;  // of a layer
};

class ResourceTable;

class CostModel {
  public:
    // For micro-batches of ceil(batch / micro_batches) samples. Errors: kBadFile when that size is
    // outside what was measured, naming the profile, the layer and the size to measure.
    // `sum_blocks`: how many sums of its gradients a stage holds that one device has.
    [[nodiscard]] static Result<CostModel> make(
        const Cluster& cluster, const ResolvedProfiles& resolved, int batch, int micro_batches,
        int sum_blocks = 1, Recomputation recomputation = Recomputation::kStages);

    [[nodiscard]] int layers() const { return layers_; }
    [[nodiscard]] int devices() const { return static_cast<int>(device_.size()); }
    [[nodiscard]] int micro_batches() const { return micro_batches_; }
    [[nodiscard]] int micro_batch() const { return micro_batch_; }  // samples
    [[nodiscard]] int sum_blocks() const { return more_sums_ + 1; }
    [[nodiscard]] Recomputation recomputation() const { return recomputation_; }
    [[nodiscard]] const Cluster& cluster() const { return cluster_; }
    [[nodiscard]] bool has_split_backward() const { return split_; }
    [[nodiscard]] bool may_cut_before(int layer) const {
        return !joined_[static_cast<std::size_t>(layer)];
    }

    // forward + backward of a micro-batch, without recomputation; or forward and both gradients
    // when they are apart.
    [[nodiscard]] double work_ms(int device, int first, int last,
                                 bool split_backward = false) const;
    // One that recomputes does so with all its layers.
    [[nodiscard]] StageCost stage_cost(const StageSpan& stage) const;
    // One that recomputes segments does so with those with which so many micro-batches fit, as far
    // as segment_table.h knows; 1 is a bound for all. At most in_flight_cap.
    [[nodiscard]] StageCost stage_cost(const StageSpan& stage, int in_flight) const;
    // Weights, gradients, moments, and buffers twice.
    [[nodiscard]] double state_bytes(const StageSpan& stage) const {
        const DeviceCost& device = device_[static_cast<std::size_t>(stage.device)];
        const Sums& begin = device.sums[static_cast<std::size_t>(stage.first)];
        const Sums& end = device.sums[static_cast<std::size_t>(stage.last) + 1];
        return end.parameters - begin.parameters + 2 * (end.buffers - begin.buffers) +
               (end.trainable - begin.trainable) * (1 + more_sums_) + end.moments - begin.moments;
    }
    // By the formula, which knows stages that keep everything or recompute everything.
    [[nodiscard]] StageMemory stage_memory(const StageSpan& stage) const;
    // With these segments recomputed; where they are part of the stage (segments.h) as they are.
    [[nodiscard]] StageMemory stage_memory(const StageSpan& stage, const Segments& segments) const;
    // The same use by use, and what is only part of it.
    [[nodiscard]] StageBytes stage_bytes(const StageSpan& stage, const Segments& segments) const;
    // Of those that it may recompute, those that cost the least time with which so many
    // micro-batches fit in `room` bytes; nothing where none does. `quickly`: as segment_table.h has
    // them.
    [[nodiscard]] std::optional<Segments> segments_for(const StageSpan& stage, int in_flight,
                                                       double room, bool quickly = false) const;
    // What segment_table.h has for a stage that recomputes segments, the quickest first.
    [[nodiscard]] const std::vector<SegmentChoice>& segment_choices(const StageSpan& stage) const {
        return segment_entry(stage).best;
    }
    // All that no other betters, whatever memory there is, the quickest first; as segment_table.h
    // has them.
    [[nodiscard]] std::vector<SegmentChoice> every_choice(const StageSpan& stage) const;
    // The least that the stage takes with so many in flight, whatever segments it recomputes.
    [[nodiscard]] double least_bytes(const StageSpan& stage, int in_flight) const;
    // Work of segment_table.h since the start, in actions of a simulation.
    [[nodiscard]] std::uint64_t segment_work() const { return segment_table_->work(); }
    // Of each stage, with these counts in flight: stage_memory's peak, and in a graph what waits
    // there (waiting_bytes).
    [[nodiscard]] std::vector<double> peak_bytes(const std::vector<StageSpan>& stages,
                                                 const std::vector<int>& in_flight) const;
    // The same of a plan's holders, as held_stages has them, with their sums of several blocks.
    [[nodiscard]] std::vector<double> peak_bytes(const Plan& plan,
                                                 const std::vector<StageSpan>& spans) const;
    [[nodiscard]] int in_flight_of(const Plan& plan, const HeldStage& held) const;
    // What goes between a plan's stages in a micro-batch, over links or not; `spans` as of `spans`.
    [[nodiscard]] StageLoads stage_loads(const Plan& plan,
                                         const std::vector<StageSpan>& spans) const;
    // None of a chain.
    [[nodiscard]] std::vector<StageLoad> skips(const std::vector<StageSpan>& stages) const;
    // Of a graph: what a slice takes from outside, in a micro-batch.
    [[nodiscard]] double entering_bytes(const StageSpan& stage) const {
        return ways_.entering_bytes(stage.first, stage.last);
    }
    [[nodiscard]] double budget_bytes(int device) const {
        return device_[static_cast<std::size_t>(device)].budget;
    }
    // The most micro-batches in flight that fit the device, at most micro_batches(), when no other
    // stage has more; 0 when not even one does.
    [[nodiscard]] int in_flight_cap(const StageSpan& stage) const;
    // Its layers form a graph: what goes between two stages depends on both (PipelineCosts::graph).
    [[nodiscard]] bool is_graph() const { return graph_; }
    // Of a chain: whether a gradient comes back for the output of `layer`: none does left of the
    // first trainable layer.
    [[nodiscard]] bool returns_gradient(int layer) const { return layer >= first_trainable_; }
    // What crosses the cut behind `layer` (-1: the model's input), in a micro-batch: of a chain its
    // output; of a graph all values that are used behind it.
    [[nodiscard]] double crossing_bytes(int layer) const {
        return output_bytes_[static_cast<std::size_t>(layer) + 1];
    }
    // Time on the wire, and latency, of all that between two devices.
    [[nodiscard]] double output_ms(int layer, int from, int to) const;
    [[nodiscard]] double latency_ms(int from, int to) const;

    // The pipeline of these stages. Without names for people unless `named`.
    [[nodiscard]] PipelineCosts pipeline(const std::vector<StageSpan>& stages,
                                         const Placement& place, bool named = true) const;
    // The pipeline of one stage a device, without names, into `costs`, whose memory is used again.
    // Stages that recompute have one micro-batch in flight, and say what more take.
    void pipeline_into(const std::vector<StageSpan>& stages, PipelineCosts& costs) const;
    // The same for a plan, its codecs included. The plan must name devices and layers of this model
    // (see spans).
    [[nodiscard]] PipelineCosts pipeline(const Plan& plan,
                                         const std::vector<StageSpan>& stages) const;
    // One a holder, as held_stages has them.
    [[nodiscard]] Result<std::vector<StageSpan>> spans(const Plan& plan,
                                                       const std::string& source) const;
    // So many more sums of the stage's gradients.
    [[nodiscard]] double sums_bytes(const StageSpan& span, int count) const;
    // Of a holder of a stage that has twins.
    [[nodiscard]] double holder_peak_bytes(const StageSpan& span, const HeldStage& held,
                                           const Plan& plan) const;
    // Twice the largest latency between the portal and a device of the pipeline.
    [[nodiscard]] double control_ms(const std::vector<StageSpan>& stages) const;

  private:
    // Of layers 0..i-1, at [i], at the device's speed.
    struct Sums {
        double forward = 0, backward = 0, input_gradient = 0, weight_gradient = 0, update = 0;
        double parameters = 0, trainable = 0, moments = 0, buffers = 0, stash = 0;
    };
    struct DeviceCost {
        std::vector<Sums> sums;
        std::vector<std::vector<double>> workspace_max;  // [k][i]: the largest of 2^k layers from i
        std::vector<double> kept_output;  // of the last layer of a slice, beside its stash
        double budget = 0;
        int slots = 0;  // of the optimiser
    };
    struct Wire {
        double ms_per_byte = 0;
        double latency_ms = 0;
    };
    [[nodiscard]] const SegmentTable::Entry& segment_entry(const StageSpan& stage) const;
    [[nodiscard]] SliceLayers slice_layers(const StageSpan& stage) const;
    // Of a slice's layers, counted from 0.
    [[nodiscard]] static Segments own_segments(const StageSpan& stage, const Segments& segments);
    // As if what is recomputed were the whole stage.
    [[nodiscard]] PipelineCosts pipeline_at_full(const Plan& plan,
                                                 const std::vector<StageSpan>& stages) const;
    void price_segments(const Plan& plan, const std::vector<StageSpan>& spans,
                        PipelineCosts& costs) const;
    [[nodiscard]] Result<DeviceCost> device_cost(const ModelProfile& profile, double speed) const;
    [[nodiscard, gnu::noinline]] StageMemory taken_by_slice(const StageSpan& stage,
                                                            StageMemory memory) const;
    // Of a graph; with a plan's codecs, if there is one.
    [[nodiscard]] PipelineCosts graph_pipeline(const std::vector<StageSpan>& stages,
                                               const Placement& place, bool named,
                                               const Plan* plan) const;
    [[nodiscard]] std::vector<std::string> device_names(const std::vector<StageSpan>& stages,
                                                        const Placement& place) const;
    void add_loads(const std::vector<StageSpan>& stages, bool named, const Plan* plan,
                   PipelineCosts& costs) const;
    // Of a plan whose stages have twins (shared_pipeline.cpp).
    [[nodiscard]] PipelineCosts shared_pipeline(const Plan& plan,
                                                const std::vector<StageSpan>& spans) const;
    [[nodiscard]] double waiting_skips_bytes(const Plan& plan, std::size_t stage,
                                             int micro_batches) const;
    void add_sums(const Plan& plan, const std::vector<StageSpan>& spans, ResourceTable& table,
                  PipelineCosts& costs) const;
    [[nodiscard]] double trainable_bytes(int layer) const {
        const std::vector<Sums>& sums = device_.front().sums;
        const auto at = static_cast<std::size_t>(layer);
        return sums[at + 1].trainable - sums[at].trainable;
    }
    [[nodiscard]] const Wire& wire(int from, int to) const {
        return wires_[static_cast<std::size_t>(from) * device_.size() +
                      static_cast<std::size_t>(to)];
    }

    Cluster cluster_;
    int layers_ = 0;
    int micro_batches_ = 1;
    int micro_batch_ = 1;
    int first_trainable_ = 0;
    int more_sums_ = 0;  // of a stage's gradients, beside the one
    bool graph_ = false;
    GraphWays ways_;  // of a graph
    bool split_ = false;
    bool media_ = false;  // some links share a medium
    std::vector<char> joined_;
    std::vector<double>
        output_bytes_;  // of a micro-batch; [0] the model's input, [i + 1] of layer i
    std::vector<DeviceCost> device_;
    std::vector<Wire> wires_;  // [from][to]; nothing from a device to itself
    Recomputation recomputation_ = Recomputation::kStages;
    // Shared with copies, and no part of what the model is: not for several threads.
    std::shared_ptr<SegmentTable> segment_table_ = std::make_shared<SegmentTable>();
};

// Whether every layer that some device of the cluster runs was measured at, or on both sides of,
// this micro-batch size.
[[nodiscard]] bool size_is_measured(const ResolvedProfiles& resolved, int micro_batch);
// The largest size up to which all were.
[[nodiscard]] int largest_measured(const ResolvedProfiles& resolved);

}  // namespace ecopipe
