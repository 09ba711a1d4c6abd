#pragma once
// Makes a running device slower, for trying out re-planning: SIGUSR1 triples the time of all its
// work, SIGUSR2 ends that.

namespace ecopipe {

void watch_slow_switch();                   // installs the handlers
[[nodiscard]] double slow_switch_factor();  // 1 or 3; any thread

}  // namespace ecopipe
