#pragma once
// What a device does in a step: one action after the other. docs/SCHEDULES.md has their text form.

#include <vector>

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
    int slice = 0;  // which of the device's groups of layers; 0 unless it has several
    friend bool operator==(const Action&, const Action&) = default;
};
using ActionList = std::vector<Action>;  // one device's, strictly in order

}  // namespace ecopipe
