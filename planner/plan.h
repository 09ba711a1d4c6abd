#pragma once
// What runs where: a plan.json.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"
#include "planner/schedule.h"

namespace ecopipe {

struct StagePlan {
    std::string device;
    int first_layer = 0;
    int last_layer = 0;  // inclusive
    int in_flight = 1;
    bool recompute = false;
    std::optional<std::uint64_t> peak_bytes;
    std::string codec_forward =
        "fp32";  // of the activations this stage sends on: fp32 | fp16 | bf16 | int8
    std::string codec_backward = "fp32";  // of the gradients this stage sends back
    // One line of docs/SCHEDULES.md that replaces the named schedule. In the device's first stage;
    // all devices or none.
    std::optional<std::string> actions;
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
    std::string
        schedule;  // gpipe | 1f1b | interleaved | zb-h1, or a name for the stages' own actions
    std::vector<StagePlan> stages;  // layer order
    std::optional<Prediction> predicted;
    std::optional<SingleDevice> single_device;  // the best that holds the model, if one does
    std::vector<WhatIf> what_if;
};

// Reads and validates: layers contiguous from 0, every stage non-empty, devices not repeated (but
// interleaved: v times in one cyclic order), in_flight not increasing after min(K, M), known
// schedule and codecs.
[[nodiscard]] Result<Plan> parse_plan(std::string_view text, const std::string& source);
[[nodiscard]] Result<Plan> read_plan(const std::string& path);
// The same rules for a plan that was not read from a text; `source` names it in errors.
[[nodiscard]] Result<void> check_plan(const Plan& plan, const std::string& source);
[[nodiscard]] std::string plan_text(const Plan& plan);  // the bytes of plan.json

// Micro-batch sizes of a batch of `samples`: min(M, samples) parts that differ by at most one,
// larger first.
[[nodiscard]] std::vector<int> micro_batch_sizes(int samples, int micro_batches);

// How many micro-batches stage `stage` holds at once: all under gpipe, else its in_flight, at most
// M.
[[nodiscard]] int micro_batches_in_flight(const Plan& plan, std::size_t stage);

// The distinct devices of the plan in order of first appearance, and each one's action list for a
// step of `micro_batches` (a short last batch has fewer than plan.micro_batches: the named schedule
// is drawn up anew for it, and a user's own loses the actions of the missing, highest
// micro-batches). Errors: kBadFile for a plan that check_plan refuses, kUsage for more
// micro-batches than planned or none.
[[nodiscard]] std::vector<std::string> plan_devices(const Plan& plan);
[[nodiscard]] Result<std::vector<ActionList>> plan_actions(const Plan& plan, int micro_batches);

}  // namespace ecopipe
