#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <tuple>

#include "planner/schedule/registry.h"
#include "planner/schedule/schedule_check.h"
#include "planner/search/in_flight.h"
#include "planner/simulate/bounds.h"
#include "planner/simulate/simulator.h"

namespace ecopipe {
namespace {

using Maker = std::function<ActionList(int device)>;

std::vector<ActionList> lists_of(int devices, const Maker& maker) {
    std::vector<ActionList> out;
    for (int d = 0; d < devices; ++d) out.push_back(maker(d));
    return out;
}

Result<ScheduleFacts> facts_of(const std::vector<ActionList>& lists,
                               std::optional<Placement> place = {}) {
    ScheduleText text{lists, {}, std::move(place)};
    for (std::size_t d = 0; d < lists.size(); ++d)
        text.places.push_back("line " + std::to_string(d + 1));
    return check_schedule(text, "schedule");
}

// Equal stages, free links: f a stage and micro-batch forward and b backward, half of it for the
// weights.
PipelineCosts equal_stages(int micro_batches, int devices, int slices, double f, double b) {
    const StageCost stage{f / slices, b / slices, 0, b / 2 / slices, b / 2 / slices, 0};
    const auto stages = static_cast<std::size_t>(devices * slices);
    const std::vector<double> links(stages - 1, 0);
    PipelineCosts costs =
        plain_costs(micro_batches, std::vector<StageCost>(stages, stage), links, links);
    costs.place = Placement::cyclic(devices, slices);
    return costs;
}

TEST(Schedules, GpipeAndOneForwardOneBackwardTakeTheFormula) {
    for (int S = 1; S <= 8; ++S)
        for (int M = 1; M <= 20; ++M) {
            const PipelineCosts costs = equal_stages(M, S, 1, 1.5, 2.25);
            const double expected = (M + S - 1) * (1.5 + 2.25);
            const auto gpipe = lists_of(S, [&](int) { return kGpipe.actions({M}); });
            const auto textbook = lists_of(S, [&](int s) { return one_f_one_b_actions(M, S - s); });
            EXPECT_DOUBLE_EQ(simulate(costs, gpipe).step_ms, expected);
            EXPECT_DOUBLE_EQ(simulate(costs, textbook).step_ms, expected);
            EXPECT_DOUBLE_EQ(pipeline_bound(costs, BackwardKind::kWhole).ms, expected);
            const auto gpipe_facts = facts_of(gpipe);
            const auto textbook_facts = facts_of(textbook);
            ASSERT_TRUE(gpipe_facts && textbook_facts);
            for (int s = 0; s < S; ++s) {
                EXPECT_EQ(gpipe_facts->peak_in_flight[static_cast<std::size_t>(s)], M);
                EXPECT_EQ(textbook_facts->peak_in_flight[static_cast<std::size_t>(s)],
                          std::min(M, S - s));
            }
        }
}

TEST(Schedules, InterleavedTakesTheFormulaWhenDevicesDivideMicroBatches) {
    for (int S = 1; S <= 6; ++S)
        for (int v = 1; v <= 4; ++v)
            for (int M = 1; M <= 18; ++M) {
                const PipelineCosts costs = equal_stages(M, S, v, 1.0, 2.0);
                const auto lists =
                    lists_of(S, [&](int d) { return kInterleaved.actions({M, d, S, v}); });
                const auto facts = facts_of(lists);
                ASSERT_TRUE(facts) << facts.error().message;
                const double step = simulate(costs, lists).step_ms;
                EXPECT_GE(step, pipeline_bound(costs, BackwardKind::kWhole).ms - 1e-9);
                if (M % S == 0) {
                    EXPECT_NEAR(step, (M + (S - 1.0) / v) * 3.0, 1e-9) << S << ' ' << v << ' ' << M;
                }
            }
}

TEST(Schedules, InterleavedFirstDevicesPeakIsThePapers) {
    for (int S = 2; S <= 6; ++S)
        for (int v = 1; v <= 4; ++v)
            EXPECT_EQ(peak_in_flight(kInterleaved.actions({4 * S, 0, S, v})), v * S + S - 1);
}

TEST(Schedules, ZeroBubbleIsWithinOneActionOfTheFormulaAtOneForwardOneBackwardsMemory) {
    for (int S = 1; S <= 8; ++S)
        for (int M = 1; M <= 24; ++M) {
            const PipelineCosts costs = equal_stages(M, S, 1, 1.0, 2.0);
            const int cap = std::min(M, S);
            const auto lists = lists_of(S, [&](int s) { return kZbH1.actions({M, s, S, 1, cap}); });
            const auto facts = facts_of(lists);
            ASSERT_TRUE(facts) << facts.error().message;
            const double step = simulate(costs, lists).step_ms;
            // With fewer micro-batches than about S the way of one micro-batch alone exceeds the
            // formula.
            const double bound = pipeline_bound(costs, BackwardKind::kSplit).ms;
            const double formula = M * 3.0 + (S - 1);
            if (M >= S) {
                EXPECT_NEAR(bound, formula, 1e-9) << S << ' ' << M;
            }
            EXPECT_GE(step, bound - 1e-9);
            EXPECT_LE(step, std::max(bound, formula) + 1.0) << S << ' ' << M;
            for (const int peak : facts->peak_in_flight) EXPECT_LE(peak, cap);
        }
}

// What a new schedule's file says is enough: without a promise of its lists' form they are played.
TEST(Schedules, OneOfWhichOnlyItsListsAreKnownIsSearchedLikeAnyOther) {
    const Schedule unknown{.name = "unknown",
                           .actions = kOneFOneB.actions,
                           .usual_in_flight = [](int, int) { return 1; }};
    for (int S = 1; S <= 4; ++S) {
        const PipelineCosts costs = equal_stages(6, S, 1, 1.0, 2.0);
        const std::vector<int> caps(static_cast<std::size_t>(S), 4);
        const double bound_ms = pipeline_bound(costs, BackwardKind::kWhole).ms;
        const InFlightChoice found = InFlightChooser(unknown, 6).choose(costs, caps, bound_ms, 256);
        const InFlightChoice known =
            InFlightChooser(kOneFOneB, 6).choose(costs, caps, bound_ms, 256);
        EXPECT_NEAR(found.step_ms, known.step_ms, 1e-9 * known.step_ms) << S;
    }
}

TEST(Schedules, EachHasItsNameAndListsThatAreASchedule) {
    EXPECT_EQ(schedule_names(), "gpipe, 1f1b, interleaved, zb-h1, v-half or v-min");
    EXPECT_EQ(find_schedule("auto"), nullptr);
    for (const Schedule* schedule : schedules()) {
        EXPECT_EQ(find_schedule(schedule->name), schedule);
        for (int S = 1; S <= 4; ++S)
            for (int M = 1; M <= 9; ++M) {
                const Placement place = schedule->place(S, 2);
                const auto facts = facts_of(
                    lists_of(S,
                             [&](int d) {
                                 return schedule->actions({M, d, S, place.slices(d), S - d});
                             }),
                    place);
                ASSERT_TRUE(facts) << schedule->name << ": " << facts.error().message;
                EXPECT_EQ(facts->split_backward, schedule->splits_backward);
                EXPECT_EQ(facts->micro_batches, M);
            }
    }
}

// Of what 1f1b's first device holds v-half holds 0.55 and v-min about a third, on every device.
// With actions of one length v-half is not slower but for two devices.
TEST(Schedules, ThereAndBackKeepsHalfOrAThirdOfTheActivations) {
    for (int S = 2; S <= 16; ++S)
        for (const int M : {1, S, 5 * S}) {
            const PipelineCosts line = equal_stages(M, S, 1, 1.0, 2.0);
            const auto textbook = lists_of(S, [&](int s) { return one_f_one_b_actions(M, S - s); });
            const double step_ms = simulate(line, textbook).step_ms;
            const bool odd = S == 2 || S == 3 || S == 5;
            for (const auto& [schedule, most, slower] :
                 {std::tuple{&kVHalf, odd ? S + 1.0 : 1.1 * S, S == 2 ? 1.13 : 1.0},
                  {&kVMin, 2.0 * S / 3 + 2, 1.4}}) {
                const auto lists =
                    lists_of(S, [&](int d) { return schedule->actions({M, d, S, 2, 0}); });
                for (const ActionList& list : lists) EXPECT_LE(peak_in_flight(list), most);
                PipelineCosts folded = equal_stages(M, S, 2, 1.0, 2.0);
                folded.place = Placement::folded(S);
                EXPECT_LE(simulate(folded, lists).step_ms, slower * step_ms * (1 + 1e-9))
                    << schedule->name << ' ' << S << ' ' << M;
            }
        }
}

}  // namespace
}  // namespace ecopipe
