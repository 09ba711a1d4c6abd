#include "planner/simulate/bounds.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/random.h"
#include "planner/schedule/registry.h"
#include "planner/search/in_flight.h"
#include "planner/simulate/recurrence.h"
#include "planner/simulate/simulator.h"

namespace ecopipe {
namespace {

// f ~ U(0.5, 2), b = f U(1.5, 2.5), c_f = c_b ~ U(0, 2).
PipelineCosts random_pipeline(Rng& rng, int stages_max, int micro_batches_max) {
    const int S = 2 + static_cast<int>(rng.below(static_cast<std::uint64_t>(stages_max - 1)));
    const int M =
        2 + static_cast<int>(rng.below(static_cast<std::uint64_t>(micro_batches_max - 1)));
    std::vector<StageCost> stages;
    std::vector<double> links;
    for (int s = 0; s < S; ++s) {
        const double f = rng.uniform(0.5, 2);
        const double b = f * rng.uniform(1.5, 2.5);
        const double w = b * rng.uniform(0.3, 0.7);
        stages.push_back({f, b, 0, b - w, w, 0});
        if (s > 0) links.push_back(rng.uniform(0, 2));
    }
    return plain_costs(M, stages, links, links);
}

std::vector<int> no_caps(const PipelineCosts& costs) {
    return std::vector<int>(costs.stages.size(), costs.micro_batches);
}

TEST(Bounds, NoStepIsBelowAndTheChosenInFlightCountsComeNear) {
    constexpr int kCases = 20000;
    Rng rng(20000);
    double chosen_sum = 0;
    double rule_sum = 0;
    double textbook_sum = 0;
    for (int i = 0; i < kCases; ++i) {
        const PipelineCosts costs = random_pipeline(rng, 6, 32);
        InFlightChooser chooser(kOneFOneB, costs.micro_batches);
        const double bound = pipeline_bound(costs, BackwardKind::kWhole).ms;
        const double rule = chooser.rule(costs, no_caps(costs)).step_ms;
        const InFlightChoice choice = chooser.choose(costs, no_caps(costs), bound, 256);
        std::vector<int> textbook;
        for (int s = 0; s < costs.stage_count(); ++s)
            textbook.push_back(std::min(costs.micro_batches, costs.stage_count() - s));
        const double simulated = simulate(costs, chooser.lists(choice.in_flight)).step_ms;
        ASSERT_NEAR(simulated, choice.step_ms, 1e-9 * simulated);
        ASSERT_GE(simulated, bound * (1 - 1e-12));
        ASSERT_LE(choice.step_ms, rule * (1 + 1e-12));
        chosen_sum += simulated / bound;
        rule_sum += rule / bound;
        textbook_sum += chooser.step_ms(costs, textbook) / bound;
    }
    fmt::print(
        "{} pipelines: mean step / bound {:.5f} with the chosen K, {:.5f} with 2(S-s)-1, {:.5f} "
        "with S-s\n",
        kCases, chosen_sum / kCases, rule_sum / kCases, textbook_sum / kCases);
    EXPECT_LE(chosen_sum / kCases, 1.008);
    EXPECT_NEAR(rule_sum / kCases, 1.022, 0.004);
}

TEST(Bounds, HoldForEveryScheduleAndRandomCounts) {
    Rng rng(7);
    for (int i = 0; i < 1500; ++i) {
        PipelineCosts costs = random_pipeline(rng, 6, 24);
        const int S = costs.stage_count();
        const int M = costs.micro_batches;
        for (StageCost& stage : costs.stages) stage.update_ms = rng.uniform(0, 3);
        for (int s = 0; s + 1 < S; ++s)
            costs.forward[static_cast<std::size_t>(s)].latency_ms = rng.uniform(0, 1);
        if (rng.below(2) == 0) {
            costs.feed = Transfer{rng.uniform(0, 1), rng.uniform(0, 1),
                                  static_cast<int>(costs.resources.size())};
            costs.resources.push_back({"feed", 1, 0, 0, ""});
        }
        const bool shared = rng.below(3) == 0;
        if (shared)  // one medium for all
            for (auto* transfers : {&costs.forward, &costs.backward})
                for (Transfer& transfer : *transfers) transfer.resource = 0;
        costs.resources[0].uses = shared ? 2 * S - 2 : 1;
        std::vector<int> counts;
        for (int s = 0, above = M; s < S; ++s)
            counts.push_back(
                above = 1 + static_cast<int>(rng.below(static_cast<std::uint64_t>(above))));
        for (const Schedule* schedule : {&kGpipe, &kOneFOneB, &kZbH1}) {
            InFlightChooser chooser(*schedule, M);
            const std::vector<ActionList> lists = chooser.lists(counts);
            const double step = simulate(costs, lists).step_ms;
            ASSERT_GE(step, pipeline_bound(costs, backward_kind(lists)).ms * (1 - 1e-12))
                << "pipeline " << i;
            if (schedule == &kOneFOneB) {
                ASSERT_GE(step, in_flight_bound_ms(costs, counts) * (1 - 1e-12))
                    << "pipeline " << i;
            }
            if (schedule == &kGpipe) {
                ASSERT_GE(step, in_flight_bound_ms(costs, no_caps(costs)) * (1 - 1e-12))
                    << "pipeline " << i;
            }
        }
    }
}

TEST(Bounds, HoldForInterleavedSlices) {
    Rng rng(8);
    for (int i = 0; i < 500; ++i) {
        const int S = 1 + static_cast<int>(rng.below(4));
        const int v = 1 + static_cast<int>(rng.below(4));
        const int M = 1 + static_cast<int>(rng.below(13));
        std::vector<StageCost> stages;
        std::vector<double> links;
        for (int k = 0; k < S * v; ++k) {
            const double f = rng.uniform(0.1, 2);
            stages.push_back({f, f * rng.uniform(1, 3), 0, 0, 0, rng.uniform(0, 1)});
            if (k > 0) links.push_back(rng.uniform(0, 1));
        }
        PipelineCosts costs = plain_costs(M, stages, links, links);
        costs.place = Placement::cyclic(S, costs.stage_count() / S);
        std::vector<ActionList> lists;
        for (int d = 0; d < S; ++d) lists.push_back(kInterleaved.actions({M, d, S, v}));
        ASSERT_GE(simulate(costs, lists).step_ms,
                  pipeline_bound(costs, BackwardKind::kWhole).ms * (1 - 1e-12))
            << i;
    }
}

// The recurrences are the search's eye; where they apply they must see what the event simulator
// sees.
TEST(Recurrence, EqualsTheEventSimulator) {
    Rng rng(9);
    int portal_is_second = 0;
    for (int i = 0; i < 2000; ++i) {
        PipelineCosts costs = random_pipeline(rng, 6, 16);
        const int M = costs.micro_batches;
        for (StageCost& stage : costs.stages) stage.update_ms = rng.uniform(0, 1);
        for (Transfer& transfer : costs.backward) transfer.latency_ms = rng.uniform(0, 1);
        if (rng.below(2) == 0) {
            costs.feed = Transfer{rng.uniform(0, 2), rng.uniform(0, 1),
                                  static_cast<int>(costs.resources.size())};
            costs.resources.push_back({"feed", 1, 0, 0, ""});
            if (rng.below(2) ==
                0) {  // the portal is stage 1: inputs and gradients over one direction
                costs.feed->resource = costs.backward[0].resource;
                costs.resources[static_cast<std::size_t>(costs.feed->resource)].uses = 2;
                ++portal_is_second;
            }
        }
        ASSERT_TRUE(recurrence_applies(costs));
        std::vector<int> counts;
        for (int s = 0, above = M; s < costs.stage_count(); ++s)
            counts.push_back(
                above = 1 + static_cast<int>(rng.below(static_cast<std::uint64_t>(above))));
        for (const Schedule* schedule : {&kGpipe, &kOneFOneB, &kZbH1}) {
            InFlightChooser chooser(*schedule, M);
            const double step = simulate(costs, chooser.lists(counts)).step_ms;
            ASSERT_NEAR(chooser.step_ms(costs, counts), step, 1e-9 * step) << "pipeline " << i;
            if (schedule == &kZbH1) continue;  // which knows no limit
            // A limit cuts off what is above it, and nothing else.
            const double limit_ms = step * rng.uniform(0.5, 1.5);
            const double limited_ms = chooser.step_ms(costs, counts, limit_ms);
            if (limit_ms > step) {
                ASSERT_EQ(limited_ms, chooser.step_ms(costs, counts)) << "pipeline " << i;
            } else {
                ASSERT_GT(limited_ms, limit_ms) << "pipeline " << i;
            }
            ASSERT_LE(quick_bound_ms(costs), step * (1 + 1e-9)) << "pipeline " << i;
        }
    }
    EXPECT_GT(portal_is_second, 100);
}

TEST(Bounds, NameWhatBinds) {
    const StageCost quick{1, 2, 0, 1, 1, 0};
    const StageCost slow{3, 6, 0, 3, 3, 0};
    EXPECT_EQ(
        pipeline_bound(plain_costs(16, {quick, slow, quick}, {0, 0}, {0, 0}), BackwardKind::kWhole)
            .by,
        "stage 1 compute");
    EXPECT_EQ(
        pipeline_bound(plain_costs(16, {quick, quick, quick}, {0, 8}, {0, 1}), BackwardKind::kWhole)
            .by,
        "link 1-2");
}

TEST(Bounds, InFlightTableOfTheResearch) {
    // research 7.4: links as slow as stages, f = 1, b = 2.
    const auto step = [](int S, int M, bool textbook) {
        const std::vector<double> down(static_cast<std::size_t>(S) - 1, 1.0);
        const std::vector<double> up(static_cast<std::size_t>(S) - 1, 2.0);
        const PipelineCosts costs = plain_costs(
            M, std::vector<StageCost>(static_cast<std::size_t>(S), StageCost{1, 2, 0, 1, 1, 0}),
            down, up);
        std::vector<int> counts;
        for (int s = 0; s < S; ++s)
            counts.push_back(std::min(M, textbook ? S - s : 2 * (S - s) - 1));
        return InFlightChooser(kOneFOneB, M).step_ms(costs, counts);
    };
    EXPECT_DOUBLE_EQ(step(4, 16, true), 99);
    EXPECT_DOUBLE_EQ(step(4, 16, false), 66);
    EXPECT_DOUBLE_EQ(step(4, 32, true), 183);
    EXPECT_DOUBLE_EQ(step(4, 32, false), 114);
    EXPECT_DOUBLE_EQ(step(6, 32, true), 201);
    EXPECT_DOUBLE_EQ(step(6, 32, false), 126);
}

}  // namespace
}  // namespace ecopipe
