#include "core/host_facts.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <thread>

#include "core/control_groups.h"

namespace ecopipe {
namespace {

// The value of the first "key : value" line in a /proc file, or "".
std::string proc_value(const char* file, const std::string& key) {
    std::ifstream in(file);
    std::string line;
    while (std::getline(in, line)) {
        if (!line.starts_with(key)) continue;
        const std::size_t colon = line.find(':');
        if (colon == std::string::npos) continue;
        const std::size_t begin = line.find_first_not_of(" \t", colon + 1);
        return begin == std::string::npos ? "" : line.substr(begin);
    }
    return {};
}

}  // namespace

std::string host_name() {
    std::array<char, 256> name{};
    return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "localhost";
}

std::string cpu_name() {
    for (const char* key : {"model name", "Model", "Hardware"})
        if (auto name = proc_value("/proc/cpuinfo", key); !name.empty()) return name;
    return "unknown";
}

std::uint32_t core_count() { return std::max(1U, std::thread::hardware_concurrency()); }

std::uint64_t available_memory_mib() {
    const std::string kib = proc_value("/proc/meminfo", "MemAvailable");
    const std::uint64_t machine = kib.empty() ? 0 : std::stoull(kib) / 1024;
    return std::min(machine, free_in_control_groups() / 1048576);
}

double resident_mib() {
    const std::string kib = proc_value("/proc/self/status", "VmRSS");
    return kib.empty() ? 0 : std::stod(kib) / 1024;
}

}  // namespace ecopipe
