#pragma once
// The subcommands of ecopipe-bench, one file each. `argv[0]` is the subcommand's name.

#include "core/result.h"

namespace ecopipe {

// Compares all schedules, simulated: for plain numbers, or for a cluster's files.
[[nodiscard]] Result<ExitCode> bench_schedules(int argc, const char* const* argv);

// Trains in one process and through a pipeline in turn, and compares with what was predicted.
[[nodiscard]] Result<ExitCode> bench_pipeline(int argc, const char* const* argv);

// Sends tensors over loopback, through a data channel and through plain TCP.
[[nodiscard]] Result<ExitCode> bench_transport(int argc, const char* const* argv);

// Folds updates into the federation server's sums, and compares with a plain float axpy.
[[nodiscard]] Result<ExitCode> bench_aggregate(int argc, const char* const* argv);

// Many clusters in one process against a federation's server, which is measured.
[[nodiscard]] Result<ExitCode> bench_federation(int argc, const char* const* argv);

}  // namespace ecopipe
