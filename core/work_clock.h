#pragma once
// Emulates a slower device: a piece of work that took the calling thread some CPU time ends when a
// device of 1 / slowdown of the speed would have ended it.

#include "core/clock.h"

namespace ecopipe {

struct WorkClock {
    Instant started = monotonic_now();
    Duration cpu = thread_cpu_time();

    // Sleeps until started + CPU time * slowdown: its own time counts, not that the thread had to
    // wait for a core of this machine. The instant it slept for; early on SIGINT or SIGTERM.
    Instant slow_down(double slowdown) const { return slow_down(slowdown, used()); }
    // The same for a part of it, which had taken this when it was done.
    Instant slow_down(double slowdown, Duration part) const;
    [[nodiscard]] Duration used() const { return thread_cpu_time() - cpu; }
};

}  // namespace ecopipe
