#pragma once
// plan.json, and what a plan's schedule makes of it.

#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "domain/action.h"
#include "domain/plan.h"

namespace ecopipe {

// Reads and validates: layers contiguous from 0, every stage non-empty, devices not repeated (but
// interleaved: v times in one cyclic order), in_flight not increasing after min(K, M), known
// schedule and codecs; where stages have twins, what holder_actions.h says.
[[nodiscard]] Result<Plan> parse_plan(std::string_view text, const std::string& source);
[[nodiscard]] Result<Plan> read_plan(const std::string& path);
// The same rules for a plan that was not read from a text; `source` names it in errors.
[[nodiscard]] Result<void> check_plan(const Plan& plan, const std::string& source);
[[nodiscard]] std::string plan_text(const Plan& plan);  // the bytes of plan.json

// How many micro-batches stage `stage` holds at once: all where the schedule does, else its
// in_flight, at most M.
[[nodiscard]] int micro_batches_in_flight(const Plan& plan, std::size_t stage);

// Each device's action list, in the order of PlanIndex::devices, for a step of `micro_batches` (a
// short last batch has fewer than plan.micro_batches: the named schedule is drawn up anew for it,
// and a user's own loses the actions of the missing, highest micro-batches). Errors: kBadFile for a
// plan that check_plan refuses, kUsage for more micro-batches than planned or none.
[[nodiscard]] Result<std::vector<ActionList>> plan_actions(const Plan& plan, int micro_batches);

}  // namespace ecopipe
