#pragma once
// Schedules as data: what each device does, in order. A schedule is a pure function to action
// lists. docs/SCHEDULES.md describes them, their limits and their text form (schedule_csv.h).

#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace ecopipe {

enum class ActionKind : char {
    kForward = 'F',
    kBackward = 'B',        // input and weight gradients at once
    kInputGradient = 'I',   // split backward, first part
    kWeightGradient = 'W',  // split backward, second part
};

struct Action {
    ActionKind kind = ActionKind::kForward;
    int micro_batch = 0;
    int slice = 0;  // which of the device's groups of layers; 0 unless interleaved
    friend bool operator==(const Action&, const Action&) = default;
};
using ActionList = std::vector<Action>;  // one device's, strictly in order

// Every function below expects micro_batches, stages, slices and in_flight of at least 1 and 0 <=
// stage < stages.

// Fill, then drain: F0..F(M-1), B0..B(M-1).
[[nodiscard]] ActionList gpipe_actions(int micro_batches);
// At most `in_flight` forwards ahead of their backward: F0..F(K-1), B0 FK B1 FK+1 ..., then the
// remaining B.
[[nodiscard]] ActionList one_f_one_b_actions(int micro_batches, int in_flight);
// Device `device` of `devices` with `slices` groups of layers each, group g of device d being stage
// g * devices + d (Narayanan et al., SC'21, section 2.2). When `micro_batches` is no multiple of
// `devices` the list is that of the next multiple without the missing micro-batches' actions, which
// keeps it free of deadlock.
[[nodiscard]] ActionList interleaved_actions(int micro_batches, int device, int devices,
                                             int slices);
// ZB-H1 (Qi et al., ICLR'24): the weight gradients of stage s trail its input gradients by s
// micro-batches, so that they fill what would be idle at the end; `in_flight` micro-batches at most
// have a forward without a weight gradient. min(M, stages) is the paper's count; fewer shorten the
// trail, more (for slow links) lengthen the warm-up.
[[nodiscard]] ActionList zb_h1_actions(int micro_batches, int stage, int stages, int in_flight);

// The most (micro-batch, slice) pairs that have had their forward but not yet the end of their
// backward.
[[nodiscard]] int peak_in_flight(const ActionList& actions);
// Without the actions of the micro-batches from `micro_batches` up: what is left is valid if the
// whole was.
[[nodiscard]] ActionList first_micro_batches(const ActionList& actions, int micro_batches);

}  // namespace ecopipe
