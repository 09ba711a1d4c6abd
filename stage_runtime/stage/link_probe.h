#pragma once
// Measures the link to one peer over the data channel that tensors take: the shortest of several
// round trips of an empty tensor, then bursts of growing size until one takes long enough. A state
// machine without sockets or clocks: time is an argument, what to send is returned.

#include <cstdint>
#include <optional>

#include "core/clock.h"

namespace ecopipe {

struct ProbeSend {
    std::uint32_t number = 0;  // comes back in the answer
    std::size_t bytes = 0;
};
struct ProbeResult {
    double mbps = 0;
    double latency_ms = 0;  // one way
};

class LinkProbe {
  public:
    // The first probe to send, at `now`.
    [[nodiscard]] ProbeSend begin(Instant now);
    // An answer came: the next probe, or nothing when the result is there. Answers to other probes
    // than the one under way give nothing and change nothing.
    [[nodiscard]] std::optional<ProbeSend> answered(std::uint32_t number, Instant now);
    [[nodiscard]] const std::optional<ProbeResult>& result() const { return result_; }

  private:
    [[nodiscard]] ProbeSend next(std::size_t bytes, Instant now);
    ProbeSend under_way_;
    Instant sent_{};
    Duration shortest_ = Duration::max();
    std::optional<ProbeResult> result_;
};

}  // namespace ecopipe
