#pragma once
// Emulates a slower link in software: when would these bytes have arrived? Pure; time is an
// argument.

#include <cstddef>

#include "core/clock.h"

namespace ecopipe {

// A rate of 0 stands for "as fast as the real link".
struct EmulatedLink {
    double mbps = 0;
    double latency_ms = 0;
    [[nodiscard]] bool active() const { return mbps > 0 || latency_ms > 0; }
};

// One direction of one link: transfers occupy it one after the other for bytes * 8 / (mbps * 1000)
// ms and arrive latency_ms after they leave, as in the planner's cost model.
class LinkShaper {
  public:
    explicit LinkShaper(EmulatedLink link) : link_(link) {}
    // Books the link for `bytes` from `now` at the earliest; the instant at which they arrive.
    [[nodiscard]] Instant reserve(Instant now, std::size_t bytes);
    [[nodiscard]] Instant free_at() const { return free_at_; }
    [[nodiscard]] bool active() const { return link_.active(); }

  private:
    EmulatedLink link_;
    Instant free_at_{};
};

}  // namespace ecopipe
