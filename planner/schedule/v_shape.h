#pragma once
// Schedules that go through the devices there and back (Placing::kFolded) with a bound on what a
// device holds: pairs of a micro-batch and a slice between their forward and their weight gradient.
// 1f1b's first device holds 2 * devices such pairs. Input and weight gradients are apart.
//
// Qi et al., "Pipeline Parallelism with Controllable Memory" (2024).

#include "planner/schedule/schedule.h"

namespace ecopipe {

// The device's list, of ScheduleShape::micro_batches, device and devices. Of the numbers of pairs
// from `least`, at least 2, to `most` the first that a block of the paper's keeps to: that of
// V-Half before that of V-Min. A block repeats one micro-batch's actions every six units of time, a
// device's whole work for it. Where there is none, a greedy list that keeps to `most`.
[[nodiscard]] ActionList v_actions(const ScheduleShape& shape, int least, int most);

}  // namespace ecopipe
