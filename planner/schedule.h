#pragma once
// Schedules as data: what each device does, in order. A schedule is a pure function to action lists.

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

// Fill, then drain: F0..F(M-1), B0..B(M-1).
[[nodiscard]] ActionList gpipe_actions(int micro_batches);
// At most `in_flight` forwards ahead of their backward: F0..F(K-1), B0 FK B1 FK+1 ..., then the remaining B.
[[nodiscard]] ActionList one_f_one_b_actions(int micro_batches, int in_flight);

}  // namespace ecopipe
