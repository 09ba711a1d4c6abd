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
    std::string codec_forward = "fp32";   // fp32 | fp16 | bf16 | int8
    std::string codec_backward = "fp32";
    std::optional<std::string> actions;   // CSV that replaces the named schedule
};

struct Prediction {
    double step_ms = 0;
    double control_ms = 0;
    double lower_bound_ms = 0;
    std::string bound_by;
    double cluster_bound_ms = 0;
    double bubble_fraction = 0;
};

struct Plan {
    std::string model;
    int batch = 0;
    int micro_batches = 0;
    std::string schedule;  // gpipe | 1f1b | interleaved | zb-h1, or a name for the stages' own actions
    std::vector<StagePlan> stages;  // layer order
    std::optional<Prediction> predicted;
    std::optional<double> single_device_ms;
};

// Reads and validates: layers contiguous from 0, every stage non-empty, devices not repeated (but interleaved: v times in
// one cyclic order), in_flight not increasing after min(K, M), known schedule and codecs.
[[nodiscard]] Result<Plan> parse_plan(std::string_view text, const std::string& source);
[[nodiscard]] Result<Plan> read_plan(const std::string& path);
[[nodiscard]] std::string plan_text(const Plan& plan);  // the bytes of plan.json

// Micro-batch sizes of a batch of `samples`: min(M, samples) parts that differ by at most one, larger first.
[[nodiscard]] std::vector<int> micro_batch_sizes(int samples, int micro_batches);

// The distinct devices of the plan in order of first appearance, and each one's action list for a step of `micro_batches`
// (a short last batch has fewer than plan.micro_batches: the named schedule is drawn up anew for it).
[[nodiscard]] std::vector<std::string> plan_devices(const Plan& plan);
[[nodiscard]] Result<std::vector<ActionList>> plan_actions(const Plan& plan, int micro_batches);

}  // namespace ecopipe
