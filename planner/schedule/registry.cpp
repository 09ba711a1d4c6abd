#include "planner/schedule/registry.h"

#include <algorithm>
#include <array>

namespace ecopipe {
namespace {
constexpr std::array kSchedules{&kGpipe, &kOneFOneB, &kInterleaved, &kZbH1, &kVHalf, &kVMin};
}  // namespace

std::span<const Schedule* const> schedules() { return kSchedules; }

const Schedule* find_schedule(std::string_view name) {
    const auto found = std::find_if(kSchedules.begin(), kSchedules.end(),
                                    [&](const Schedule* known) { return known->name == name; });
    return found == kSchedules.end() ? nullptr : *found;
}

std::string schedule_names(std::string_view last_separator) {
    std::string out;
    for (std::size_t i = 0; i < kSchedules.size(); ++i) {
        if (i > 0) out += i + 1 == kSchedules.size() ? last_separator : ", ";
        out += kSchedules[i]->name;
    }
    return out;
}

}  // namespace ecopipe
