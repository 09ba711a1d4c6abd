#pragma once
// The text form of schedules (docs/SCHEDULES.md): one line a device in pipeline order, actions
// apart by commas, an action being its kind, micro-batch and, for slices above 0, a dot and the
// slice: "F0,F1,B0.1". '#' starts a comment line, one of which may say where the stages lie.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "domain/action.h"
#include "domain/placement.h"

namespace ecopipe {

inline constexpr int kSlicesMax = 64;

struct ScheduleText {
    std::vector<ActionList> devices;
    std::vector<std::string> places;  // of each device's list in the text, for errors: "line 3"
    // "# place: 0,1,2,2,1,0": the device of each stage in layer order. Without such a line the
    // devices take turns.
    std::optional<Placement> placement{};
};

[[nodiscard]] std::string action_text(const Action& action);       // "F3", "B3.1"
[[nodiscard]] std::string actions_csv(const ActionList& actions);  // one line without its newline
[[nodiscard]] std::string schedule_csv(const std::vector<ActionList>& devices,
                                       const Placement& place = {});

// One device's line. Errors name `place` and the cell.
[[nodiscard]] Result<ActionList> parse_actions(std::string_view line, const std::string& place);
// A whole file. Errors: kBadFile with `source` and line. Says nothing about sense: see
// schedule_check.h.
[[nodiscard]] Result<ScheduleText> parse_schedule(std::string_view text, const std::string& source);

}  // namespace ecopipe
