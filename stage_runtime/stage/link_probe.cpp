#include "stage_runtime/stage/link_probe.h"

#include <algorithm>

namespace ecopipe {
namespace {

constexpr std::uint32_t kRoundTrips = 20;
constexpr std::size_t kSmallest = 8;  // bytes: what a round trip carries
constexpr std::size_t kFirstBurst = 1U << 18;
constexpr std::size_t kLargestBurst = 64U << 20;
constexpr auto kLongEnough = std::chrono::milliseconds(400);

}  // namespace

ProbeSend LinkProbe::next(std::size_t bytes, Instant now) {
    under_way_ = {under_way_.number + 1, bytes};
    sent_ = now;
    return under_way_;
}

ProbeSend LinkProbe::begin(Instant now) { return next(kSmallest, now); }

std::optional<ProbeSend> LinkProbe::answered(std::uint32_t number, Instant now) {
    if (number != under_way_.number || result_) return std::nullopt;
    const Duration took = now - sent_;
    if (under_way_.bytes == kSmallest) {
        shortest_ = std::min(shortest_, took);
        return next(number < kRoundTrips ? kSmallest : kFirstBurst, now);
    }
    if (took < kLongEnough && under_way_.bytes < kLargestBurst)
        return next(under_way_.bytes * 2, now);
    constexpr double kBitsPerByte = 8;
    const double on_the_wire = std::max(to_ms(took - shortest_), 1e-3);
    result_ = ProbeResult{static_cast<double>(under_way_.bytes) * kBitsPerByte / on_the_wire / 1000,
                          to_ms(shortest_) / 2};
    return std::nullopt;
}

}  // namespace ecopipe
