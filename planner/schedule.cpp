#include "planner/schedule.h"

#include <algorithm>

#include "core/check.h"

namespace ecopipe {
namespace {

using enum ActionKind;

// The n-th action of one direction on a device with slices: micro-batches go in groups of
// `devices`, each group through slice after slice (forwards up, backwards down).
Action nth_interleaved(ActionKind kind, int n, int devices, int slices) {
    const int group = n / (devices * slices);
    const int within = n % (devices * slices);
    const int slice = within / devices;
    return {kind, group * devices + within % devices,
            kind == kForward ? slice : slices - 1 - slice};
}

}  // namespace

ActionList gpipe_actions(int micro_batches) {
    return one_f_one_b_actions(micro_batches, micro_batches);
}

ActionList one_f_one_b_actions(int micro_batches, int in_flight) {
    ECOPIPE_CHECK(micro_batches >= 1 && in_flight >= 1);
    const int ahead = std::min(in_flight, micro_batches);
    ActionList out;
    out.reserve(static_cast<std::size_t>(micro_batches) * 2);
    for (int m = 0; m < ahead; ++m) out.push_back({kForward, m});
    for (int m = 0; m < micro_batches; ++m) {
        out.push_back({kBackward, m});
        if (m + ahead < micro_batches) out.push_back({kForward, m + ahead});
    }
    return out;
}

ActionList interleaved_actions(int micro_batches, int device, int devices, int slices) {
    ECOPIPE_CHECK(micro_batches >= 1 && slices >= 1 && device >= 0 && device < devices);
    const int whole = (micro_batches + devices - 1) / devices * devices;
    const int count = whole * slices;
    const int ahead = std::min(count, 2 * (devices - device - 1) + (slices - 1) * devices);
    ActionList out;
    out.reserve(static_cast<std::size_t>(count) * 2);
    for (int n = 0; n < ahead; ++n) out.push_back(nth_interleaved(kForward, n, devices, slices));
    for (int n = 0; n < count; ++n) {
        if (n + ahead < count) out.push_back(nth_interleaved(kForward, n + ahead, devices, slices));
        out.push_back(nth_interleaved(kBackward, n, devices, slices));
    }
    return first_micro_batches(out, micro_batches);
}

ActionList zb_h1_actions(int micro_batches, int stage, int stages, int in_flight) {
    ECOPIPE_CHECK(micro_batches >= 1 && in_flight >= 1 && stage >= 0 && stage < stages);
    const int cap = std::min(in_flight, micro_batches);
    const int ahead = std::min(cap, stages - stage + std::max(0, cap - stages));
    const int trail = cap - ahead;
    ActionList out;
    out.reserve(static_cast<std::size_t>(micro_batches) * 3);
    for (int m = 0; m < ahead; ++m) out.push_back({kForward, m});
    for (int m = 0; m < micro_batches; ++m) {
        out.push_back({kInputGradient, m});
        if (m >= trail) out.push_back({kWeightGradient, m - trail});
        if (m + ahead < micro_batches) out.push_back({kForward, m + ahead});
    }
    for (int m = std::max(0, micro_batches - trail); m < micro_batches; ++m)
        out.push_back({kWeightGradient, m});
    return out;
}

int peak_in_flight(const ActionList& actions) {
    int alive = 0;
    int peak = 0;
    for (const Action& action : actions) {
        if (action.kind == kForward) peak = std::max(peak, ++alive);
        if (action.kind == kBackward || action.kind == kWeightGradient) --alive;
    }
    return peak;
}

ActionList first_micro_batches(const ActionList& actions, int micro_batches) {
    ActionList out;
    std::copy_if(actions.begin(), actions.end(), std::back_inserter(out),
                 [&](const Action& action) { return action.micro_batch < micro_batches; });
    return out;
}

}  // namespace ecopipe
