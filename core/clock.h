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

// CPU time of the calling thread; what emulation of a slower device multiplies.
[[nodiscard]] Duration thread_cpu_time();

}  // namespace ecopipe
