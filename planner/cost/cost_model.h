#pragma once
// INTERFACES' cost model: what any run of layers costs on any device of a cluster, and what a
// pipeline of them costs.

#include <string>
#include <vector>

#include "domain/plan.h"
#include "planner/cost/cluster.h"
#include "planner/cost/model_profile.h"
#include "planner/cost/pipeline_costs.h"
#include "planner/cost/resolved_profiles.h"

namespace ecopipe {

// One stage as the search sees it: layers first..last of one device.
struct StageSpan {
    int device = 0;
    int first = 0;
    int last = 0;  // inclusive
    bool recompute = false;
};

// A stage's memory by the contract's formula, in bytes.
struct StageMemory {
    double fixed =
        0;  // parameters, gradients, optimiser slots, workspace, and one stash when it recomputes
    double in_flight =
        0;  // for each micro-batch in flight: its stash, or its input when it recomputes
    [[nodiscard]] double peak(int in_flight_count) const {
        return fixed + in_flight * in_flight_count;
    }
};

class CostModel {
  public:
    // For micro-batches of ceil(batch / micro_batches) samples. Errors: kBadFile when that size is
    // outside what was measured, naming the profile, the layer and the size to measure.
    [[nodiscard]] static Result<CostModel> make(const Cluster& cluster,
                                                const ResolvedProfiles& resolved, int batch,
                                                int micro_batches);

    [[nodiscard]] int layers() const { return layers_; }
    [[nodiscard]] int devices() const { return static_cast<int>(device_.size()); }
    [[nodiscard]] int micro_batches() const { return micro_batches_; }
    [[nodiscard]] int micro_batch() const { return micro_batch_; }  // samples
    [[nodiscard]] const Cluster& cluster() const { return cluster_; }
    [[nodiscard]] bool has_split_backward() const { return split_; }
    [[nodiscard]] bool may_cut_before(int layer) const {
        return !joined_[static_cast<std::size_t>(layer)];
    }

    // forward + backward of a micro-batch, without recomputation; or forward and both gradients
    // when they are apart.
    [[nodiscard]] double work_ms(int device, int first, int last,
                                 bool split_backward = false) const;
    [[nodiscard]] StageCost stage_cost(const StageSpan& stage) const;
    [[nodiscard]] StageMemory stage_memory(const StageSpan& stage) const;
    [[nodiscard]] double budget_bytes(int device) const {
        return device_[static_cast<std::size_t>(device)].budget;
    }
    // The most micro-batches in flight that fit the device, at most micro_batches(); 0 when not
    // even one does.
    [[nodiscard]] int in_flight_cap(const StageSpan& stage) const;
    // Whether a gradient comes back for the output of `layer`: none does left of the first
    // trainable layer.
    [[nodiscard]] bool returns_gradient(int layer) const { return layer >= first_trainable_; }
    // Time on the wire, and latency, of the output of `layer` (-1: the model's input) between two
    // devices.
    [[nodiscard]] double output_ms(int layer, int from, int to) const;
    [[nodiscard]] double latency_ms(int from, int to) const;

    // The pipeline of these stages; stage k is slice k / devices of device k % devices. Without
    // names for people unless `named`.
    [[nodiscard]] PipelineCosts pipeline(const std::vector<StageSpan>& stages, int devices,
                                         bool named = true) const;
    // The pipeline of one stage a device, without names, into `costs`, whose memory is used again.
    void pipeline_into(const std::vector<StageSpan>& stages, PipelineCosts& costs) const;
    // The same for a plan, its codecs included. The plan must name devices and layers of this model
    // (see spans).
    [[nodiscard]] PipelineCosts pipeline(const Plan& plan,
                                         const std::vector<StageSpan>& stages) const;
    [[nodiscard]] Result<std::vector<StageSpan>> spans(const Plan& plan,
                                                       const std::string& source) const;
    // Twice the largest latency between the portal and a device of the pipeline.
    [[nodiscard]] double control_ms(const std::vector<StageSpan>& stages) const;

  private:
    // Of layers 0..i-1, at [i], at the device's speed.
    struct Sums {
        double forward = 0, backward = 0, input_gradient = 0, weight_gradient = 0, update = 0;
        double parameters = 0, trainable = 0, stash = 0;
    };
    struct DeviceCost {
        std::vector<Sums> sums;
        std::vector<std::vector<double>> workspace_max;  // [k][i]: the largest of 2^k layers from i
        double budget = 0;
        double weights = 1;  // copies beside a trainable parameter: gradient, optimiser's slots
    };
    struct Wire {
        double ms_per_byte = 0;
        double latency_ms = 0;
    };
    [[nodiscard]] Result<DeviceCost> device_cost(const ModelProfile& profile, double speed) const;
    [[nodiscard]] const Wire& wire(int from, int to) const {
        return wires_[static_cast<std::size_t>(from) * device_.size() +
                      static_cast<std::size_t>(to)];
    }

    Cluster cluster_;
    int layers_ = 0;
    int micro_batches_ = 1;
    int micro_batch_ = 1;
    int first_trainable_ = 0;
    bool split_ = false;
    bool media_ = false;  // some links share a medium
    std::vector<char> joined_;
    std::vector<double>
        output_bytes_;  // of a micro-batch; [0] the model's input, [i + 1] of layer i
    std::vector<DeviceCost> device_;
    std::vector<Wire> wires_;  // [from][to]; nothing from a device to itself
};

// Whether every layer that some device of the cluster runs was measured at, or on both sides of,
// this micro-batch size.
[[nodiscard]] bool size_is_measured(const ResolvedProfiles& resolved, int micro_batch);
// The largest size up to which all were.
[[nodiscard]] int largest_measured(const ResolvedProfiles& resolved);

}  // namespace ecopipe
