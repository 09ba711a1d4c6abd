#include <algorithm>

#include "core/check.h"
#include "planner/schedule/registry.h"

namespace ecopipe {

ActionList one_f_one_b_actions(int micro_batches, int in_flight) {
    ECOPIPE_CHECK(micro_batches >= 1 && in_flight >= 1);
    const int ahead = std::min(in_flight, micro_batches);
    ActionList out;
    out.reserve(static_cast<std::size_t>(micro_batches) * 2);
    for (int m = 0; m < ahead; ++m) out.push_back({ActionKind::kForward, m});
    for (int m = 0; m < micro_batches; ++m) {
        out.push_back({ActionKind::kBackward, m});
        if (m + ahead < micro_batches) out.push_back({ActionKind::kForward, m + ahead});
    }
    return out;
}

// Narayanan et al., SOSP'19, without its stale weights. 2(S-s)-1 hides a link's delay, which the
// textbook's S-s does not (research/pipeline.md 7.4).
const Schedule kOneFOneB{
    .name = "1f1b",
    .actions =
        [](const ScheduleShape& shape) {
            return one_f_one_b_actions(shape.micro_batches, shape.in_flight);
        },
    .usual_in_flight = [](int stage, int stages) { return 2 * (stages - stage) - 1; },
    .one_f_one_b = true};

}  // namespace ecopipe
