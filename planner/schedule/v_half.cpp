#include <algorithm>

#include "planner/schedule/registry.h"
#include "planner/schedule/v_shape.h"

namespace ecopipe {

// At most 0.55 of what 1f1b's first device holds; of two, three or five devices, for which nothing
// so small is quick, one pair more than a half.
const Schedule kVHalf{.name = "v-half",
                      .actions =
                          [](const ScheduleShape& shape) {
                              const int half = std::max(2, shape.devices * 11 / 10);
                              return v_actions(shape, half, std::max(half, shape.devices + 1));
                          },
                      .in_flight = InFlightRule::kByActions,
                      .splits_backward = true,
                      .placing = Placing::kFolded};

}  // namespace ecopipe
