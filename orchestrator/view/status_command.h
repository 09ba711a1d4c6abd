#pragma once
// ecopipe-train status --out DIR [--json]: how a run is doing, from its directory alone.

#include "core/result.h"

namespace ecopipe {

// `argv[0]` is "status". Prints to stdout. kDone when the run lives or has ended well, kRunFailed
// when it failed or died; kBadFile when DIR holds no run.
[[nodiscard]] Result<ExitCode> show_status(int argc, const char* const* argv);

}  // namespace ecopipe
