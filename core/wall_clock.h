#pragma once
// The time of day, for people. Logic takes it as an argument, so that tests own it; nothing waits
// on it (clock.h is for that).

#include <chrono>
#include <cstdint>

namespace ecopipe {

[[nodiscard]] inline std::int64_t unix_ms_now() {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
}

}  // namespace ecopipe
