#pragma once
// The subcommands of ecopipe-bench, one file each. `argv[0]` is the subcommand's name.

#include "core/result.h"

namespace ecopipe {

// Compares all schedules, simulated: for plain numbers, or for a cluster's files.
[[nodiscard]] Result<ExitCode> bench_schedules(int argc, const char* const* argv);

}  // namespace ecopipe
