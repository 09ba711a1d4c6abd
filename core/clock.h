#pragma once
// Time as the machines see it: a monotonic instant that is always an argument, so that tests own
// it.

#include <chrono>
#include <cstdint>

namespace ecopipe {

using Duration = std::chrono::nanoseconds;
using Instant = std::chrono::time_point<std::chrono::steady_clock, Duration>;

// The adapters' clock. Logic never calls it.
[[nodiscard]] inline Instant monotonic_now() { return std::chrono::steady_clock::now(); }

[[nodiscard]] constexpr double to_ms(Duration d) {
    return std::chrono::duration<double, std::milli>(d).count();
}
[[nodiscard]] constexpr Duration from_ms(double ms) {
    return std::chrono::duration_cast<Duration>(std::chrono::duration<double, std::milli>(ms));
}

// For how long whoever meant to look at others at `due` did not run itself, as a frozen virtual
// machine, a process that was stopped or swapped out: what it is late by, above what a busy machine
// makes usual. That time says nothing of the others.
[[nodiscard]] constexpr Duration time_not_run(Instant now, Instant due) {
    constexpr Duration kUsual = std::chrono::milliseconds(300);
    return now - due > kUsual ? now - due : Duration::zero();
}

// CPU time of the calling thread; what emulation of a slower device multiplies.
[[nodiscard]] Duration thread_cpu_time();

}  // namespace ecopipe
