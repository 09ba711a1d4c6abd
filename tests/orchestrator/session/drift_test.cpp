#include "orchestrator/session/drift.h"

#include <gtest/gtest.h>

#include "core/random.h"

namespace ecopipe {
namespace {

TEST(Drift, TenPercentOfNoiseNeverTells) {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        DriftDetector detector;
        Rng rng(seed);
        for (int step = 0; step < 2000; ++step)
            ASSERT_FALSE(detector.step("a", 40 * rng.uniform(0.9, 1.1))) << seed << " " << step;
    }
}

TEST(Drift, AThreefoldSlowdownIsToldWithinTenSteps) {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        DriftDetector detector;
        Rng rng(seed);
        for (int step = 0; step < 40; ++step)
            static_cast<void>(detector.step("a", 40 * rng.uniform(0.9, 1.1)));
        std::optional<Drift> told;
        int steps = 0;
        while (!told) {
            told = detector.step("a", 120 * rng.uniform(0.9, 1.1));
            ASSERT_LE(++steps, 10);
        }
        EXPECT_NEAR(told->factor, 3, 0.7);
        // Then the new speed is the usual one.
        for (int step = 0; step < 500; ++step)
            ASSERT_FALSE(detector.step("a", 120 * rng.uniform(0.9, 1.1)));
        // And getting faster again is told likewise.
        for (steps = 0; !(told = detector.step("a", 40 * rng.uniform(0.9, 1.1))); ++steps)
            ASSERT_LE(steps, 10);
        EXPECT_NEAR(told->factor, 1.0 / 3, 0.1);
    }
}

TEST(Drift, OneOutlierIsNoDrift) {
    DriftDetector detector;
    for (int step = 0; step < 400; ++step)
        ASSERT_FALSE(detector.step("a", step % 20 == 19 ? 4000 : 40)) << step;
}

TEST(Drift, ANewPlanIsLearntAnew) {
    DriftDetector detector;
    for (int step = 0; step < 20; ++step) static_cast<void>(detector.step("a", 40));
    detector.plan_changed();
    for (int step = 0; step < 100; ++step) ASSERT_FALSE(detector.step("a", 200));
}

TEST(Move, PaysOnlyWhenTheGainOutweighsTheCost) {
    MoveOffer offer{100, 60, 1000, 1e6, 100, 100};
    EXPECT_TRUE(weigh_move(offer).pays);
    EXPECT_DOUBLE_EQ(weigh_move(offer).gain_ms, 40000);
    EXPECT_DOUBLE_EQ(weigh_move(offer).cost_ms, 180);
    offer.remaining_steps = 5;  // 200 ms saved, 270 asked for
    EXPECT_FALSE(weigh_move(offer).pays);
    offer.remaining_steps = 1000000;
    offer.candidate_step_ms = 96;  // within what predictions err
    EXPECT_FALSE(weigh_move(offer).pays);
    offer.candidate_step_ms = 120;
    EXPECT_FALSE(weigh_move(offer).pays);
}

}  // namespace
}  // namespace ecopipe
