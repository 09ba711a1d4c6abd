#include "orchestrator/session/reachability.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>
#include <vector>

namespace ecopipe {
namespace {

struct Part {
    int pairs = 0;
    bool must_go = false;  // its partner stays whatever comes
    bool dialled = false;
};

std::map<std::string, Part> parts_of(const std::set<UnreachedPair>& pairs,
                                     const std::set<std::string>& gone,
                                     const std::set<std::string>& kept) {
    std::map<std::string, Part> parts;
    for (const auto& [from, to] : pairs) {
        if (gone.contains(from) || gone.contains(to)) continue;
        for (const auto& [one, other] : {std::pair(from, to), std::pair(to, from)}) {
            if (kept.contains(one)) continue;
            Part& part = parts[one];
            ++part.pairs;
            part.must_go = part.must_go || kept.contains(other);
            part.dialled = part.dialled || one == to;
        }
    }
    return parts;
}

}  // namespace

std::set<std::string> whom_to_leave_out(const std::set<UnreachedPair>& pairs,
                                        const std::set<std::string>& present,
                                        const std::set<std::string>& kept,
                                        const StepOver& step_over) {
    std::set<std::string> gone;
    for (;;) {
        const auto parts = parts_of(pairs, gone, kept);
        if (parts.empty()) return gone;
        const auto weight = [](const Part& part) { return std::pair(part.must_go, part.pairs); };
        std::pair<bool, int> most{false, 0};
        for (const auto& [device, part] : parts) most = std::max(most, weight(part));
        std::vector<std::string> candidates;
        for (const auto& [device, part] : parts)
            if (weight(part) == most) candidates.push_back(device);
        const auto without = [&](const std::string& device) {
            std::set<std::string> rest = present;
            for (const std::string& left_out : gone) rest.erase(left_out);
            rest.erase(device);
            return candidates.size() == 1
                       ? 0.0
                       : step_over(rest).value_or(std::numeric_limits<double>::infinity());
        };
        // From the last name to the first, so that of equals the last one goes.
        std::pair<double, bool> least;
        std::string goes;
        for (auto device = candidates.rbegin(); device != candidates.rend(); ++device) {
            const std::pair rank{without(*device), !parts.at(*device).dialled};
            if (goes.empty() || rank < least) {
                least = rank;
                goes = *device;
            }
        }
        gone.insert(goes);
    }
}

}  // namespace ecopipe
