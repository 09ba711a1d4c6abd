#include "orchestrator/session/liveness.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

LivenessLimits limits() {
    LivenessLimits limits;
    limits.silence_min = milliseconds(200);
    limits.silence_max = seconds(5);
    limits.action_min = seconds(1);
    limits.action_unknown = seconds(60);
    limits.action_factor = 10;
    limits.stall_min = seconds(4);
    return limits;
}
const Instant kStart{seconds(1)};

TEST(Liveness, ReportsSilenceOnce) {
    Liveness liveness(limits());
    liveness.joined("a", kStart);
    liveness.joined("b", kStart);
    liveness.heard("b", kStart + seconds(1));
    EXPECT_TRUE(liveness.suspects(kStart + seconds(5)).empty());
    const auto suspects = liveness.suspects(kStart + milliseconds(5100));
    ASSERT_EQ(suspects.size(), 1U);
    EXPECT_EQ(suspects[0].device, "a");
    EXPECT_EQ(suspects[0].how, "it has said nothing for 5.1 s");
    EXPECT_TRUE(liveness.suspects(kStart + milliseconds(5200)).empty());
    liveness.left("b");
    EXPECT_TRUE(liveness.suspects(kStart + seconds(99)).empty());
}

TEST(Liveness, ARegularDeviceIsMissedSooner) {
    Liveness liveness(limits());
    liveness.joined("a", kStart);
    Instant now = kStart;
    for (int i = 0; i < 50; ++i) liveness.heard("a", now += milliseconds(100));
    EXPECT_EQ(liveness.silence_limit("a"), milliseconds(200));  // not below the least
    EXPECT_TRUE(liveness.suspects(now + milliseconds(199)).empty());
    EXPECT_EQ(liveness.suspects(now + milliseconds(201)).size(), 1U);
}

TEST(Liveness, BytesThatArriveAreProgressWhoeverGetsThem) {
    Instant now{};
    Liveness liveness({});
    liveness.joined("a", now);
    liveness.work_due(true, now);
    Activity activity;
    for (int n = 1; n <= 10; ++n) {  // a chunk every 20 s: one tensor over a slow link
        now += seconds(20);
        liveness.heard("a", now);
        if (n % 2 == 0) {
            ++activity.progress;  // at the stage
            liveness.pong("a", now, now, 0, activity);
        } else {
            liveness.progressed(now);  // at the portal
        }
        EXPECT_FALSE(liveness.stalled(now + seconds(19)));
    }
    EXPECT_TRUE(liveness.stalled(now + seconds(31)));
}

// Its answer is read before the observer finds out that it was away itself.
TEST(Liveness, WhoIsHeardAfterThePauseIsNotGivenItsTimeTwice) {
    Instant now{};
    Liveness liveness({});
    liveness.joined("a", now);
    for (int i = 0; i < 50; ++i) liveness.heard("a", now += milliseconds(100));
    liveness.heard("a", now += seconds(60));
    liveness.observer_was_away(now, seconds(60));
    EXPECT_TRUE(liveness.suspects(now + seconds(1)).empty());
    EXPECT_EQ(liveness.suspects(now + seconds(6)).size(), 1U);
}

TEST(WatchedDeadline, WhatItsHolderDidNotRunDoesNotCount) {
    Instant now{};
    WatchedDeadline deadline(now, seconds(5), milliseconds(50));
    EXPECT_FALSE(deadline.over(now += seconds(60)));  // stopped between two looks
    EXPECT_EQ(deadline.not_run(), seconds(60) - milliseconds(50));
    for (int look = 0; look < 98; ++look) EXPECT_FALSE(deadline.over(now += milliseconds(50)));
    EXPECT_FALSE(deadline.over(now));
    EXPECT_TRUE(deadline.over(now += milliseconds(50)));
    EXPECT_EQ(deadline.not_run(), Duration::zero());
}

// A portal that was stopped for a minute, with everybody's answers still unread.
TEST(Liveness, TimeInWhichTheObserverDidNotRunCountsForNobody) {
    Liveness liveness(limits());
    liveness.joined("a", kStart);
    Instant now = kStart;
    for (int i = 0; i < 50; ++i) liveness.heard("a", now += milliseconds(100));
    liveness.work_due(true, now);
    now += seconds(60);
    EXPECT_EQ(time_not_run(now, now - seconds(60)), seconds(60));
    liveness.observer_was_away(now, seconds(60));
    EXPECT_TRUE(liveness.suspects(now + milliseconds(150)).empty());
    EXPECT_FALSE(liveness.stalled(now + milliseconds(3900)));
    // One that really is gone is missed as soon as ever.
    EXPECT_EQ(liveness.suspects(now + milliseconds(201)).size(), 1U);
    EXPECT_TRUE(liveness.stalled(now + milliseconds(4100)));
    // A busy machine is late by some milliseconds always.
    EXPECT_EQ(time_not_run(now, now - milliseconds(250)), Duration::zero());
}

TEST(Liveness, AnIrregularDeviceIsGivenTime) {
    Liveness liveness(limits());
    liveness.joined("a", kStart);
    Instant now = kStart;
    for (int i = 0; i < 60; ++i) liveness.heard("a", now += milliseconds(i % 2 == 0 ? 50 : 450));
    EXPECT_GT(liveness.silence_limit("a"), seconds(1));
    for (int i = 0; i < 60; ++i) liveness.heard("a", now += seconds(i % 2 == 0 ? 1 : 9));
    EXPECT_EQ(liveness.silence_limit("a"), seconds(5));  // not above the most
}

TEST(Liveness, AHungActionBehindALiveNetworkThreadIsFound) {
    Liveness liveness(limits());
    liveness.joined("a", kStart);
    Activity activity{7, milliseconds(900), milliseconds(80), 12, 3};
    liveness.pong("a", kStart, kStart, 0, activity);
    EXPECT_TRUE(liveness.suspects(kStart).empty());  // below the least deadline
    activity.busy = milliseconds(1001);
    liveness.pong("a", kStart, kStart, 0, activity);
    const auto suspects = liveness.suspects(kStart);
    ASSERT_EQ(suspects.size(), 1U);
    EXPECT_NE(suspects[0].how.find("step 13, micro-batch 3"), std::string::npos);
    // A slow device has slow actions: ten times its longest is its deadline.
    liveness.joined("b", kStart);
    liveness.pong("b", kStart, kStart, 0, {7, seconds(4), milliseconds(500), 12, 3});
    EXPECT_TRUE(liveness.suspects(kStart).empty());
    // Before anything has finished nothing is known.
    liveness.joined("c", kStart);
    liveness.pong("c", kStart, kStart, 0, {0, seconds(50), {}, 0, 0});
    EXPECT_TRUE(liveness.suspects(kStart).empty());
}

TEST(Liveness, AStallIsNobodysFault) {
    Liveness liveness(limits());
    liveness.joined("a", kStart);
    EXPECT_FALSE(liveness.stalled(kStart + seconds(100)));  // nothing is due
    liveness.work_due(true, kStart);
    EXPECT_FALSE(liveness.stalled(kStart + seconds(4)));
    liveness.pong("a", kStart, kStart + seconds(3), 0, {1, {}, milliseconds(1), 0, 0});
    EXPECT_FALSE(liveness.stalled(kStart + seconds(6)));
    EXPECT_EQ(liveness.stalled(kStart + seconds(8)), seconds(5));
    EXPECT_FALSE(liveness.stalled(kStart + seconds(9)));  // once
}

TEST(Liveness, TheShortestRoundTripGivesTheClockOffset) {
    Liveness liveness(limits());
    liveness.joined("a", kStart);
    // Their clock is 1 s behind ours; the answer left in the middle of a 2 ms round trip.
    liveness.pong("a", kStart, kStart + milliseconds(2), milliseconds(1).count() * 1'000'000, {});
    EXPECT_EQ(liveness.clock_offset_ns("a"), 1'000'000'000);
    liveness.pong("a", kStart, kStart + milliseconds(50), 0, {});  // a slow round trip tells less
    EXPECT_EQ(liveness.clock_offset_ns("a"), 1'000'000'000);
    EXPECT_EQ(liveness.clock_offset_ns("nobody"), 0);
}

}  // namespace
}  // namespace ecopipe
