#include "planner/schedule/registry.h"
#include "planner/schedule/v_shape.h"

namespace ecopipe {

// A third of what 1f1b's first device holds, and one micro-batch's slice more.
const Schedule kVMin{.name = "v-min",
                     .actions =
                         [](const ScheduleShape& shape) {
                             const int third = (2 * shape.devices + 2) / 3 + 1;
                             return v_actions(shape, third, third);
                         },
                     .in_flight = InFlightRule::kByActions,
                     .splits_backward = true,
                     .placing = Placing::kFolded};

}  // namespace ecopipe
