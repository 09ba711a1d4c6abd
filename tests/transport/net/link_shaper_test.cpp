#include "transport/net/link_shaper.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

TEST(LinkShaper, TransfersTakeTurnsAndArriveALatencyLater) {
    LinkShaper shaper({.mbps = 8, .latency_ms = 3});  // 1000 bytes a millisecond
    const Instant start{std::chrono::seconds(1)};
    EXPECT_DOUBLE_EQ(to_ms(shaper.reserve(start, 5000) - start), 8);
    EXPECT_DOUBLE_EQ(to_ms(shaper.reserve(start, 1000) - start), 9);
    EXPECT_DOUBLE_EQ(to_ms(shaper.free_at() - start), 6);
    const Instant later = start + std::chrono::milliseconds(100);
    EXPECT_DOUBLE_EQ(to_ms(shaper.reserve(later, 1000) - later), 4);
}

TEST(LinkShaper, WithoutARateOnlyLatencyCounts) {
    LinkShaper shaper({.mbps = 0, .latency_ms = 2});
    const Instant start{std::chrono::seconds(1)};
    EXPECT_DOUBLE_EQ(to_ms(shaper.reserve(start, 1U << 30) - start), 2);
    EXPECT_FALSE(LinkShaper(EmulatedLink{}).active());
}

}  // namespace
}  // namespace ecopipe
