#include "core/work_clock.h"

#include <time.h>

#include <cerrno>

#include "core/command_line.h"

namespace ecopipe {

Instant WorkClock::slow_down(double slowdown, Duration part) const {
    if (slowdown <= 1) return monotonic_now();
    const Instant until = started + std::chrono::duration_cast<Duration>(part * slowdown);
    timespec when{};
    when.tv_sec = until.time_since_epoch().count() / 1'000'000'000;
    when.tv_nsec = until.time_since_epoch().count() % 1'000'000'000;
    while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, nullptr) == EINTR &&
           signal_received() == 0) {
    }
    return until;
}

}  // namespace ecopipe
