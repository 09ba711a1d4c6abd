#pragma once
// What a device says about itself when it joins.

#include <cstdint>
#include <string>

namespace ecopipe {

[[nodiscard]] std::string host_name();
[[nodiscard]] std::string cpu_name();
[[nodiscard]] std::uint32_t core_count();
[[nodiscard]] std::uint64_t available_memory_mib();  // its control groups' limits included
[[nodiscard]] double resident_mib();                 // of this process

}  // namespace ecopipe
