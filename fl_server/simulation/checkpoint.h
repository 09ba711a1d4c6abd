#pragma once
// A virtual run's snapshot in a file: written whole beside its place and renamed. A run that was
// killed goes on from it to the same bytes.

#include <optional>
#include <string>

#include "fl_server/simulation/virtual_run.h"

namespace ecopipe {

struct SimulationCheckpoint {
    VirtualRun::Snapshot snapshot;
    std::uint64_t lines_bytes = 0;  // of the run's file when it was made; what is beyond is cut off
};

[[nodiscard]] Result<void> write_simulation_checkpoint(const std::string& path,
                                                       const SimulationCheckpoint& checkpoint);
// Nothing when there is no such file. Errors: kBadFile when its hash does not fit, kMismatch for
// another format number.
[[nodiscard]] Result<std::optional<SimulationCheckpoint>> read_simulation_checkpoint(
    const std::string& path);

}  // namespace ecopipe
