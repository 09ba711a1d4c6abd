#include "planner/schedule/registry.h"

namespace ecopipe {

// Huang et al., NeurIPS'19.
const Schedule kGpipe{.name = "gpipe",
                      .actions =
                          [](const ScheduleShape& shape) {
                              return one_f_one_b_actions(shape.micro_batches, shape.micro_batches);
                          },
                      .in_flight = InFlightRule::kAll,
                      .one_f_one_b = true};

}  // namespace ecopipe
