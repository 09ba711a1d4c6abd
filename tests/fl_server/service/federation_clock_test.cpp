#include "fl_server/service/federation_clock.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

using OwnWork = FederationClock::OwnWork;

class FederationClockTest : public ::testing::Test {
  protected:
    double process_s_ = 1000;  // where it starts does not matter
    FederationClock clock_{[this] { return process_s_; }};

    double after(double seconds) {
        process_s_ += seconds;
        clock_.advance();
        return clock_.now_s();
    }
};

TEST_F(FederationClockTest, BeginsWithItsFirstAdvanceAndMovesAtNoOtherTime) {
    EXPECT_EQ(after(5), 0) << "nobody ran it";
    EXPECT_EQ(after(2), 2);
    process_s_ += 3;
    EXPECT_EQ(clock_.now_s(), 2);
    EXPECT_EQ(after(0), 5);
}

TEST_F(FederationClockTest, OwnWorkIsLeftOut) {
    after(0);
    process_s_ += 1;
    {
        const OwnWork working(clock_);
        process_s_ += 10;
    }
    EXPECT_EQ(after(1), 2);
    EXPECT_EQ(after(1), 3) << "once";
}

TEST_F(FederationClockTest, NestedOwnWorkIsLeftOutOnce) {
    after(0);
    {
        const OwnWork outer(clock_);
        process_s_ += 10;
        {
            const OwnWork inner(clock_);
            process_s_ += 20;
            const OwnWork innermost(clock_);
            process_s_ += 40;
        }
        process_s_ += 80;
    }
    process_s_ += 1;
    {
        const OwnWork again(clock_);
        process_s_ += 160;
    }
    EXPECT_EQ(after(2), 3);
}

TEST_F(FederationClockTest, StandsStillWhilePausedAndOwesNothingAfterwards) {
    after(0);
    after(1);
    clock_.pause(true);
    EXPECT_TRUE(clock_.paused());
    EXPECT_EQ(after(100), 1);
    {
        const OwnWork working(clock_);
        process_s_ += 50;
    }
    EXPECT_EQ(after(100), 1);
    clock_.pause(false);
    EXPECT_EQ(after(2), 3) << "neither the pause nor the work in it";
}

TEST_F(FederationClockTest, APauseCountsFromTheAdvanceBeforeIt) {
    after(0);
    process_s_ += 4;
    clock_.pause(true);
    EXPECT_EQ(after(4), 0);
    process_s_ += 4;
    clock_.pause(false);
    EXPECT_EQ(after(4), 8);
}

TEST_F(FederationClockTest, NeverGoesBack) {
    after(0);
    after(7);
    EXPECT_EQ(after(-3), 7) << "also where the process's clock does";
    clock_.catch_up(3);
    EXPECT_EQ(clock_.now_s(), 7);
    clock_.catch_up(9);
    EXPECT_EQ(clock_.now_s(), 9);
    EXPECT_EQ(after(1), 10);
}

TEST_F(FederationClockTest, ADeadlineIsDueAtItsInstant) {
    after(0);
    EXPECT_FALSE(clock_.due());
    EXPECT_FALSE(clock_.waits()) << "there is none";
    clock_.wake_at(3);
    EXPECT_FALSE(clock_.due());
    EXPECT_TRUE(clock_.waits());
    after(3);
    EXPECT_TRUE(clock_.due());
    EXPECT_FALSE(clock_.waits());
    clock_.wake_at(4);
    EXPECT_FALSE(clock_.due()) << "the newest holds";
    after(1);
    clock_.forget_deadline();
    EXPECT_FALSE(clock_.due());
    EXPECT_FALSE(clock_.waits());
}

TEST_F(FederationClockTest, ADeadlineWaitsWhileTheClockStands) {
    after(0);
    clock_.wake_at(3);
    clock_.pause(true);
    after(100);
    EXPECT_FALSE(clock_.due());
    clock_.pause(false);
    {
        const OwnWork working(clock_);
        process_s_ += 100;
    }
    after(2);
    EXPECT_FALSE(clock_.due());
    after(1);
    EXPECT_TRUE(clock_.due());
}

TEST_F(FederationClockTest, AnotherProcessGoesOnWhereTheSnapshotWas) {
    after(0);
    after(7);
    clock_.wake_at(9);
    clock_.pause(true);
    Json snapshot;
    clock_.save(snapshot);
    EXPECT_EQ(snapshot, Json({{"clock_s", 7.0}, {"wake_at_s", 9.0}}));
    double other_s = -5;
    FederationClock other([&] { return other_s; });
    other.restore(snapshot);
    EXPECT_EQ(other.now_s(), 7);
    EXPECT_FALSE(other.paused()) << "the journal has that";
    EXPECT_TRUE(other.waits());
    other.advance();
    other_s = -3;
    other.advance();
    EXPECT_EQ(other.now_s(), 9);
    EXPECT_TRUE(other.due());
}

TEST_F(FederationClockTest, ASnapshotWithoutADeadlineHasNone) {
    Json snapshot;
    clock_.save(snapshot);
    EXPECT_EQ(snapshot, Json({{"clock_s", 0.0}}));
    FederationClock other([] { return 0.0; });
    other.restore(snapshot);
    other.catch_up(1e9);
    EXPECT_FALSE(other.due());
    EXPECT_THROW(other.restore(Json::object()), Json::exception);
    EXPECT_THROW(other.restore({{"clock_s", "late"}}), Json::exception);
}

}  // namespace
}  // namespace ecopipe
