#pragma once
// What runs where. planner/schedule/plan_file.h reads and writes it, plan_index.h answers who has
// what and who is before and after.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/memory_use.h"
#include "domain/layer_range.h"
#include "domain/placement.h"
#include "domain/tensor_codec.h"

namespace ecopipe {

// The layers of a stage whose activations are not kept from a micro-batch's forward to its backward
// (activation checkpointing; Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016):
// of each run of them what enters it is kept, and it runs forward again right before its backward.
// Ascending and apart; none: all is kept. Bytes do not depend on it.
using Segments = std::vector<LayerRange>;
// What of them lies in these layers.
[[nodiscard]] Segments within(const Segments& segments, LayerRange layers);
// What a planner lets a stage recompute: all its layers; any segments of them; or those that its
// memory asks for while it runs.
enum class Recomputation { kStages, kSegments, kAdaptive };

// A device that holds a stage, alone or with others: all have its whole state, each runs the
// micro-batches of its own sum blocks.
struct StageHolder {
    std::string device;
    std::vector<int> blocks;  // sum_blocks.h, ascending
    int in_flight = 1;
    Segments recomputed;
    std::optional<std::uint64_t> peak_bytes;
};

struct StagePlan {
    std::string device;
    int first_layer = 0;
    int last_layer = 0;  // inclusive
    int in_flight = 1;
    Segments recomputed{};
    std::optional<std::uint64_t> peak_bytes;
    TensorCodec codec_forward = TensorCodec::kNone;   // of the activations this stage sends on
    TensorCodec codec_backward = TensorCodec::kNone;  // of the gradients this stage sends back
    // One line of docs/SCHEDULES.md that replaces the named schedule. In the device's first stage;
    // all devices or none.
    std::optional<std::string> actions;
    std::vector<int> blocks{};         // that `device` owns; empty: all
    std::vector<StageHolder> twins{};  // the other devices that hold the stage
};

// One of the ways in which a device may hold its layers.
struct MemoryPoint {
    std::uint64_t peak_bytes = 0;  // of tensors at most, at a step's fullest moment, as predicted
    double recompute_ms = 0;       // of a micro-batch, in all its layers
    Segments recomputed;           // of all its layers
    friend bool operator==(const MemoryPoint&, const MemoryPoint&) = default;
};

struct Prediction {
    double step_ms = 0;
    double control_ms = 0;
    double lower_bound_ms = 0;
    std::string bound_by;
    double cluster_bound_ms = 0;
    double bubble_fraction = 0;
};

// What a change of the cluster would make of the step; no time when no plan would exist.
struct WhatIf {
    std::string change;
    std::optional<double> step_ms;
};

// One device that does the whole step by itself, with as many threads as were best of those
// profiled.
struct SingleDevice {
    double step_ms = 0;
    std::string device;  // "" when a plan written by hand does not say
    int threads = 1;
};

struct Plan {
    std::string model;
    int batch = 0;
    int micro_batches = 0;
    // A name of planner/schedule/registry.h, or one for the stages' own actions.
    std::string schedule;
    std::vector<StagePlan> stages;  // layer order
    int sum_blocks = 1;             // sum_blocks.h: bytes depend on it, so no later plan changes it
    std::optional<Prediction> predicted;
    std::map<std::string, MemoryByUse>
        memory{};  // predicted, by device: at a step's fullest moment
    // By device, from what is quickest to what takes the least memory, where a stage may change
    // while it runs (--recompute adaptive).
    std::map<std::string, std::vector<MemoryPoint>> frontiers{};
    std::optional<SingleDevice> single_device;  // the best that holds the model, if one does
    // What was weighed beside it: the best with one device a stage, and with one stage.
    std::optional<double> pipeline_ms;
    std::optional<double> data_parallel_ms;
    std::vector<WhatIf> what_if;
};

// All of a stage, `device` first.
[[nodiscard]] std::vector<StageHolder> holders_of(const StagePlan& stage, int sum_blocks);
// All stages on all their holders, in layer order: one each where none has twins.
struct HeldStage {
    std::size_t stage = 0;  // of the plan
    StageHolder holder;
};
[[nodiscard]] std::vector<HeldStage> held_stages(const Plan& plan);
// Some stage has several holders, or says which blocks its one has.
[[nodiscard]] bool has_twins(const Plan& plan);
// What the device recomputes in all its stages.
[[nodiscard]] Segments recomputed_on(const Plan& plan, const std::string& device);

// Of its stages; where some have twins, of all holders, each by itself.
[[nodiscard]] Placement placement_of(const Plan& plan);

// For people, a line a holder: "stage on hub: layers 0..4, 2 in flight".
[[nodiscard]] std::vector<std::string> stage_lines(const Plan& plan);

// What the device takes at most, as predicted: as `memory` has it, else its stages together; 0
// where nothing was.
[[nodiscard]] std::uint64_t predicted_peak_bytes(const Plan& plan, const std::string& device);

// Micro-batch sizes of a batch of `samples`: min(M, samples) parts that differ by at most one,
// larger first.
[[nodiscard]] std::vector<int> micro_batch_sizes(int samples, int micro_batches);

}  // namespace ecopipe
