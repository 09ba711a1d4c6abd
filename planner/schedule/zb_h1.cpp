#include <algorithm>

#include "core/check.h"
#include "planner/schedule/registry.h"

namespace ecopipe {
namespace {

// The weight gradients of stage s trail its input gradients by s micro-batches, so that they fill
// what would be idle at the end; `in_flight` micro-batches at most have a forward without a weight
// gradient. min(M, stages) is the paper's count; fewer shorten the trail, more (for slow links)
// lengthen the warm-up.
ActionList zb_h1_actions(const ScheduleShape& shape) {
    const auto& [micro_batches, stage, stages, slices, in_flight] = shape;
    ECOPIPE_CHECK(micro_batches >= 1 && in_flight >= 1 && stage >= 0 && stage < stages);
    const int cap = std::min(in_flight, micro_batches);
    const int ahead = std::min(cap, stages - stage + std::max(0, cap - stages));
    const int trail = cap - ahead;
    ActionList out;
    out.reserve(static_cast<std::size_t>(micro_batches) * 3);
    for (int m = 0; m < ahead; ++m) out.push_back({ActionKind::kForward, m});
    for (int m = 0; m < micro_batches; ++m) {
        out.push_back({ActionKind::kInputGradient, m});
        if (m >= trail) out.push_back({ActionKind::kWeightGradient, m - trail});
        if (m + ahead < micro_batches) out.push_back({ActionKind::kForward, m + ahead});
    }
    for (int m = std::max(0, micro_batches - trail); m < micro_batches; ++m)
        out.push_back({ActionKind::kWeightGradient, m});
    return out;
}

}  // namespace

// Qi et al., ICLR'24.
const Schedule kZbH1{.name = "zb-h1",
                     .actions = zb_h1_actions,
                     .usual_in_flight = [](int, int stages) { return stages; },
                     .splits_backward = true};

}  // namespace ecopipe
