#include "planner/cost/memory_check.h"

#include <fmt/format.h>

#include "core/units.h"
#include "planner/cost/resolved_profiles.h"

namespace ecopipe {

Result<void> check_memory(const Cluster& cluster, const std::vector<ModelProfile>& profiles,
                          const Plan& plan) {
    ECOPIPE_ASSIGN_OR_RETURN(const ResolvedProfiles resolved, resolve_profiles(cluster, profiles));
    for (std::size_t d = 0; d < cluster.devices.size(); ++d) {
        const Device& device = cluster.devices[d];
        const double needed = static_cast<double>(predicted_peak_bytes(plan, device.name)) / kMib;
        const double process = resolved.profiles[resolved.of_device[d].profile].process_mib;
        const double budget = device.memory_mib - process;
        if (needed > budget)
            return fail(ExitCode::kBadFile,
                        fmt::format("device {}: its layers need {:.1f} MiB; memory_mib {:.1f} less "
                                    "{:.1f} for the program leaves {:.1f}, {:.1f} MiB short",
                                    device.name, needed, device.memory_mib, process,
                                    std::max(budget, 0.0), needed - budget));
    }
    return {};
}

}  // namespace ecopipe
