#include "core/control_groups.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>

namespace ecopipe {
namespace {

struct Version {
    const char* controllers;  // in a line of /proc/self/cgroup
    const char* place;        // under the root
    const char* limit;
    const char* taken;
    const char* cache;  // in memory.stat
};
constexpr Version kSecond{"::", "", "/memory.max", "/memory.current", "inactive_file"};
constexpr Version kFirst{":memory:", "/memory", "/memory.limit_in_bytes", "/memory.usage_in_bytes",
                         "total_inactive_file"};

// "/a/b"; "" at the root, and where there is none.
std::string own_group(const Version& version, const ControlGroupPlaces& places) {
    std::ifstream in(places.own);
    for (std::string line; std::getline(in, line);) {
        const auto found = line.find(version.controllers);
        if (found == std::string::npos) continue;
        const std::string path = line.substr(line.find('/'));
        return path == "/" ? "" : path;
    }
    return {};
}

std::uint64_t free_in(const std::string& place, const Version& version) {
    std::uint64_t most = 0;
    std::uint64_t taken = 0;
    std::ifstream limit(place + version.limit);
    std::ifstream current(place + version.taken);
    if (!(limit >> most) || !(current >> taken)) return UINT64_MAX;  // "max", or no such group
    std::ifstream statistics(place + "/memory.stat");
    std::string name;
    for (std::uint64_t bytes = 0; statistics >> name >> bytes;)
        if (name == version.cache) taken -= std::min(taken, bytes);
    return most - std::min(most, taken);
}

}  // namespace

std::uint64_t free_in_control_groups(const ControlGroupPlaces& places) {
    std::uint64_t least = UINT64_MAX;
    for (const Version& version : {kSecond, kFirst}) {
        std::string group = own_group(version, places);
        for (;; group.resize(group.rfind('/'))) {
            least = std::min(least, free_in(places.root + version.place + group, version));
            if (group.empty()) break;
        }
    }
    return least;
}

double memory_pressure(const ControlGroupPlaces& places) {
    for (const std::string& file :
         {places.root + own_group(kSecond, places) + "/memory.pressure", places.pressure}) {
        // "some avg10=0.00 avg60=0.00 avg300=0.00 total=0"
        std::ifstream in(file);
        std::string some;
        std::string average;
        if (in >> some >> average && some == "some" && average.starts_with("avg10="))
            return std::strtod(average.c_str() + std::string("avg10=").size(), nullptr);
    }
    return 0;
}

}  // namespace ecopipe
