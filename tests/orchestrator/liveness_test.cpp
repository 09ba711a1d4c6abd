#include "orchestrator/liveness.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

using std::chrono::milliseconds;

TEST(Liveness, ReportsSilenceOnce) {
    Liveness liveness(milliseconds(100));
    const Instant start{std::chrono::seconds(1)};
    liveness.joined("a", start);
    liveness.joined("b", start);
    liveness.heard("b", start + milliseconds(90));
    EXPECT_TRUE(liveness.silent(start + milliseconds(100)).empty());
    EXPECT_EQ(liveness.silent(start + milliseconds(101)), std::vector<std::string>{"a"});
    EXPECT_TRUE(liveness.silent(start + milliseconds(150)).empty());
    liveness.left("b");
    EXPECT_TRUE(liveness.silent(start + milliseconds(900)).empty());
}

TEST(Liveness, TheShortestRoundTripGivesTheClockOffset) {
    Liveness liveness(milliseconds(100));
    const Instant start{std::chrono::seconds(1)};
    liveness.joined("a", start);
    // Their clock is 1 s behind ours; the answer left in the middle of a 2 ms round trip.
    liveness.pong("a", start, start + milliseconds(2), milliseconds(1).count() * 1'000'000);
    EXPECT_EQ(liveness.clock_offset_ns("a"), 1'000'000'000);
    liveness.pong("a", start, start + milliseconds(50), 0);  // a slow round trip tells less
    EXPECT_EQ(liveness.clock_offset_ns("a"), 1'000'000'000);
    EXPECT_EQ(liveness.clock_offset_ns("nobody"), 0);
}

}  // namespace
}  // namespace ecopipe
