#pragma once
// Devices that cannot reach one another, and whom to leave out so that the others can train. Pure.

#include <functional>
#include <optional>
#include <set>
#include <string>

namespace ecopipe {

// `from` dials the data port of `to` and gets no channel.
struct UnreachedPair {
    std::string from;
    std::string to;
    friend auto operator<=>(const UnreachedPair&, const UnreachedPair&) = default;
};

// The milliseconds of a step over these devices, nothing when there is no plan over them.
using StepOver = std::function<std::optional<double>(const std::set<std::string>& devices)>;

// A set of `present` without whom no two of the others are a pair. A device that is in more pairs
// than any other goes first: it is rather its own firewall than that of all the others. Of several,
// the one without whom a step is shortest; then one that is dialled, then the last by name. `kept`
// (the portal and its own device) never go: their partners do; two of them cannot be helped.
[[nodiscard]] std::set<std::string> whom_to_leave_out(const std::set<UnreachedPair>& pairs,
                                                      const std::set<std::string>& present,
                                                      const std::set<std::string>& kept,
                                                      const StepOver& step_over);

}  // namespace ecopipe
