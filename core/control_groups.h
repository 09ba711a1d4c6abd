#pragma once
// What the control groups of this process leave it of memory, and how much is waited for it: those
// of version 2, or of version 1 as older systems and containers have them.

#include <cstdint>
#include <string>

namespace ecopipe {

struct ControlGroupPlaces {
    std::string own = "/proc/self/cgroup";  // which groups this process is in
    std::string root = "/sys/fs/cgroup";
    std::string pressure = "/proc/pressure/memory";  // of the whole machine
};

// Bytes that this process and those in its groups may still take until the first group is at its
// limit; page cache that nobody uses counts as free. UINT64_MAX: there is no limit.
[[nodiscard]] std::uint64_t free_in_control_groups(const ControlGroupPlaces& places = {});
// For how much of the last ten seconds some task waited for memory, in percent (PSI): in this
// process' group, else on the machine; 0 where the kernel does not say.
[[nodiscard]] double memory_pressure(const ControlGroupPlaces& places = {});

}  // namespace ecopipe
