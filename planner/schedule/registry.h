#pragma once
// The schedules that have a name.

#include <span>
#include <string>
#include <string_view>

#include "planner/schedule/schedule.h"

namespace ecopipe {

extern const Schedule kGpipe;        // fill, then drain: F0..F(M-1), B0..B(M-1)
extern const Schedule kOneFOneB;     // 1f1b
extern const Schedule kInterleaved;  // several groups of layers a device
extern const Schedule kZbH1;         // weight gradients fill what would be idle
extern const Schedule kVHalf;        // there and back: half of 1f1b's activations
extern const Schedule kVMin;         // a third of them

inline constexpr const char* kAutoSchedule = "auto";  // in a request: whichever is fastest

[[nodiscard]] std::span<const Schedule* const> schedules();
[[nodiscard]] const Schedule* find_schedule(std::string_view name);  // null: none of that name
// "gpipe, 1f1b, interleaved, zb-h1, v-half or v-min": for messages.
[[nodiscard]] std::string schedule_names(std::string_view last_separator = " or ");

}  // namespace ecopipe
