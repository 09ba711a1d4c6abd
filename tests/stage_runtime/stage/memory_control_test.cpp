#include "stage_runtime/stage/memory_control.h"

#include <gtest/gtest.h>

#include "core/random.h"

namespace ecopipe {
namespace {

const std::vector<MemoryPoint> kFrontier{
    {1000, 0, {}}, {800, 1, {{3, 3}}}, {500, 2, {{2, 3}}}, {200, 4, {{0, 3}}}};

MemoryBudget by_hand(std::uint64_t bytes) { return {bytes, true, false}; }
MemoryBudget free_now(std::uint64_t bytes) { return {bytes, false, false}; }

TEST(MemoryControl, WithoutAFrontierNothingIsDone) {
    MemoryControl control;
    control.configure({}, {}, 0);
    EXPECT_FALSE(control.active());
    EXPECT_FALSE(control.next(by_hand(1)));
}

TEST(MemoryControl, TakesTheQuickestThatFits) {
    MemoryControl control;
    control.configure(kFrontier, {}, 0);
    EXPECT_FALSE(control.next(by_hand(1030)));  // a prediction may err by 3 %
    const auto less = control.next(by_hand(1029));
    ASSERT_TRUE(less);
    EXPECT_EQ(less->recomputed, (Segments{{3, 3}}));
    EXPECT_EQ(less->needed_bytes, 824U);
    EXPECT_LE(less->needed_bytes, less->budget_bytes);
    EXPECT_EQ(control.next(by_hand(520))->recomputed, (Segments{{2, 3}}));
    EXPECT_FALSE(control.next(by_hand(520)));
}

TEST(MemoryControl, GoesBackOnceItHasFittedTwice) {
    MemoryControl control;
    control.configure(kFrontier, {}, 0);
    ASSERT_TRUE(control.next(by_hand(300)));
    EXPECT_FALSE(control.next(by_hand(2000)));
    const auto back = control.next(by_hand(2000));
    ASSERT_TRUE(back);
    EXPECT_TRUE(back->recomputed.empty());
    // What comes and goes is not followed up.
    ASSERT_TRUE(control.next(by_hand(300)));
    for (int i = 0; i < 5; ++i) {
        EXPECT_FALSE(control.next(by_hand(2000)));
        EXPECT_FALSE(control.next(by_hand(300)));
    }
}

TEST(MemoryControl, TellsWhenItHasTooLittleAndWhenNoLonger) {
    MemoryControl control;
    control.configure(kFrontier, {{0, 3}}, 0);
    const auto told = control.next(by_hand(100));
    ASSERT_TRUE(told);
    EXPECT_EQ(told->recomputed, (Segments{{0, 3}}));
    EXPECT_EQ(told->needed_bytes, 206U);
    EXPECT_FALSE(control.next(by_hand(100)));
    const auto over = control.next(by_hand(210));
    ASSERT_TRUE(over);
    EXPECT_EQ(over->budget_bytes, 210U);
}

// Whatever is free, no more is taken than was planned; by hand it is.
TEST(MemoryControl, FreeMemoryIsNoReasonToTakeMoreThanPlanned) {
    MemoryControl control;
    control.configure(kFrontier, {{2, 3}}, 0);
    for (int i = 0; i < 4; ++i) EXPECT_FALSE(control.next(free_now(1 << 20)));
    EXPECT_EQ(control.next(free_now(300))->recomputed, (Segments{{0, 3}}));
    EXPECT_EQ(control.next(std::nullopt)->recomputed, (Segments{{2, 3}}));
    EXPECT_FALSE(control.next(std::nullopt));
    control.configure(kFrontier, {{2, 3}}, 0);
    EXPECT_FALSE(control.next(by_hand(5000)));
    EXPECT_TRUE(control.next(by_hand(5000))->recomputed.empty());
}

// A plan by hand, or one that a better point has taken the place of: never more than it takes.
TEST(MemoryControl, APlanOffItsFrontierIsTakenForThePointBelow) {
    MemoryControl control;
    control.configure(kFrontier, {{1, 3}}, 600);
    const auto onto = control.next(free_now(1 << 20));
    ASSERT_TRUE(onto);
    EXPECT_EQ(onto->recomputed, (Segments{{2, 3}}));
    for (int i = 0; i < 4; ++i) EXPECT_FALSE(control.next(free_now(1 << 20)));
    control.configure(kFrontier, {{1, 3}}, 100);
    EXPECT_EQ(control.next(std::nullopt)->recomputed, (Segments{{0, 3}}));
}

TEST(MemoryControl, WhatWasMeasuredBeyondThePredictionCounts) {
    MemoryControl control;
    control.configure(kFrontier, {}, 0);
    EXPECT_FALSE(control.next(by_hand(1100)));
    control.measured(1150);  // 120 more than predicted
    const auto less = control.next(by_hand(1100));
    ASSERT_TRUE(less);
    EXPECT_EQ(less->needed_bytes, 824U + 120);
    for (int i = 0; i < 60; ++i) control.measured(700);
    EXPECT_FALSE(control.next(by_hand(1100)));
    EXPECT_TRUE(control.next(by_hand(1100))->recomputed.empty());
}

TEST(MemoryControl, UnderPressureItGivesUpPointAfterPoint) {
    MemoryControl control;
    control.configure(kFrontier, {}, 0);
    int moves = 0;
    int looks = 0;
    for (; looks < 40 && moves < 3; ++looks)
        moves += control.next(MemoryBudget{1 << 20, false, true}) ? 1 : 0;
    EXPECT_EQ(moves, 3);
    EXPECT_GE(looks, 9);
    EXPECT_FALSE(control.next(MemoryBudget{1 << 20, false, true}));
}

// Predictions hold, budgets jump about: no step takes more than its budget, unless nothing would.
TEST(MemoryControl, NoBudgetIsExceeded) {
    Rng rng(21);
    for (int round = 0; round < 50; ++round) {
        std::vector<MemoryPoint> frontier;
        std::uint64_t bytes = 5000;
        for (int i = 0; i < 8; ++i) {
            frontier.push_back({bytes, static_cast<double>(i), {{i, i}}});
            bytes -= 1 + rng.below(bytes / 3);
        }
        MemoryControl control;
        auto at = static_cast<std::size_t>(rng.below(8));
        control.configure(frontier, frontier[at].recomputed, 0);
        std::uint64_t budget = 6000;
        for (int step = 0; step < 200; ++step) {
            if (rng.below(4) == 0) budget = rng.below(6000);
            if (const auto move = control.next(by_hand(budget)))
                at = static_cast<std::size_t>(move->recomputed.front().first);
            const double errs = rng.uniform(0.95, 1.03);
            const auto taken =
                static_cast<std::uint64_t>(errs * static_cast<double>(frontier[at].peak_bytes));
            EXPECT_TRUE(taken <= budget || at == 7) << taken << " of " << budget;
            control.measured(taken);
        }
    }
}

}  // namespace
}  // namespace ecopipe
