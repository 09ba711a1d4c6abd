#include <algorithm>

#include "core/check.h"
#include "planner/schedule/registry.h"

namespace ecopipe {
namespace {

// The n-th action of one direction on a device with slices: micro-batches go in groups of
// `devices`, each group through slice after slice (forwards up, backwards down).
Action nth_interleaved(ActionKind kind, int n, int devices, int slices) {
    const int group = n / (devices * slices);
    const int within = n % (devices * slices);
    const int slice = within / devices;
    return {kind, group * devices + within % devices,
            kind == ActionKind::kForward ? slice : slices - 1 - slice};
}

// When `micro_batches` is no multiple of `devices` the list is that of the next multiple without
// the missing micro-batches' actions, which keeps it free of deadlock.
ActionList interleaved_actions(const ScheduleShape& shape) {
    const auto& [micro_batches, device, devices, slices, in_flight] = shape;
    ECOPIPE_CHECK(micro_batches >= 1 && slices >= 1 && device >= 0 && device < devices);
    const int whole = (micro_batches + devices - 1) / devices * devices;
    const int count = whole * slices;
    const int ahead = std::min(count, 2 * (devices - device - 1) + (slices - 1) * devices);
    ActionList out;
    out.reserve(static_cast<std::size_t>(count) * 2);
    for (int n = 0; n < ahead; ++n)
        out.push_back(nth_interleaved(ActionKind::kForward, n, devices, slices));
    for (int n = 0; n < count; ++n) {
        if (n + ahead < count)
            out.push_back(nth_interleaved(ActionKind::kForward, n + ahead, devices, slices));
        out.push_back(nth_interleaved(ActionKind::kBackward, n, devices, slices));
    }
    return first_micro_batches(out, micro_batches);
}

}  // namespace

// Narayanan et al., SC'21, section 2.2.
const Schedule kInterleaved{.name = "interleaved",
                            .actions = interleaved_actions,
                            .in_flight = InFlightRule::kByActions,
                            .placing = Placing::kCyclic};

}  // namespace ecopipe
