#include "stage_runtime/stage/link_probe.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

// Answers as a link of this rate and latency would.
ProbeResult over(double mbps, double latency_ms) {
    LinkProbe probe;
    Instant now{};
    std::optional<ProbeSend> send = probe.begin(now);
    while (send) {
        now += from_ms(static_cast<double>(send->bytes) * 8 / (mbps * 1000) + 2 * latency_ms);
        send = probe.answered(send->number, now);
    }
    return *probe.result();
}

TEST(LinkProbe, FindsRateAndLatency) {
    for (const double mbps : {1.0, 20.0, 940.0, 10000.0})
        for (const double latency_ms : {0.05, 1.0, 30.0}) {
            const ProbeResult found = over(mbps, latency_ms);
            EXPECT_NEAR(found.mbps / mbps, 1, 0.02) << mbps << " Mbit/s, " << latency_ms << " ms";
            EXPECT_NEAR(found.latency_ms, latency_ms, 0.04);
        }
}

TEST(LinkProbe, StrayAnswersChangeNothing) {
    LinkProbe probe;
    const ProbeSend first = probe.begin(Instant{});
    EXPECT_FALSE(probe.answered(first.number + 7, Instant{}));
    EXPECT_TRUE(probe.answered(first.number, Instant{} + from_ms(1)));
    EXPECT_FALSE(probe.answered(first.number, Instant{} + from_ms(2)));  // a second time
    EXPECT_FALSE(probe.result());
}

}  // namespace
}  // namespace ecopipe
