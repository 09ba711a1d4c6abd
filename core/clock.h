#pragma once
// Time as the machines see it: a monotonic instant that is always an argument, so that tests own
// it.

#include <algorithm>
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

// The deadline of whoever looks at least every `tick`: what it is late by does not count.
class WatchedDeadline {
  public:
    WatchedDeadline(Instant now, Duration patience, Duration tick)
        : deadline_(now + patience), tick_(tick), due_(now + tick) {}

    // A look.
    [[nodiscard]] bool over(Instant now) {
        not_run_ = time_not_run(now, due_);
        deadline_ += not_run_;
        due_ = std::min<Instant>(deadline_, now + tick_);
        return now >= deadline_;
    }
    [[nodiscard]] Instant look_again() const { return due_; }    // at the latest
    [[nodiscard]] Duration not_run() const { return not_run_; }  // before the last look

  private:
    Instant deadline_;
    Duration tick_;
    Instant due_;
    Duration not_run_{};
};

// CPU time of the calling thread; what emulation of a slower device multiplies.
[[nodiscard]] Duration thread_cpu_time();

}  // namespace ecopipe
