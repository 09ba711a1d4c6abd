#include "fl_server/strategies/grouping.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "core/random.h"
#include "tests/fl_server/strategies/strategy_desk.h"

namespace ecopipe::test {
namespace {

TEST(LabelDistribution, VectorsInNats) {
    const LabelCounts uniform(10, 1);
    const std::vector<std::pair<int, double>> vectors = {{1, .525597}, {2, .422810}, {4, .274358},
                                                         {5, .215762}, {6, .163897}, {8, .074882},
                                                         {10, 0}};
    for (const auto& [k, expected] : vectors) {
        LabelCounts counts(10, 0);
        for (int i = 0; i < k; ++i) counts[static_cast<std::size_t>(i)] = 7;
        EXPECT_NEAR(js_divergence(counts, uniform), expected, 1e-6) << k;
        EXPECT_NEAR(js_divergence(uniform, counts), expected, 1e-6) << k;
    }
    EXPECT_NEAR(js_divergence({1, 0}, {0, 1}), std::log(2.0), 1e-12);
    EXPECT_EQ(js_divergence({}, uniform), 0);
}

// 50 clients, two labels each, in five latency bands; tied: a band's clients share their labels.
Grouping sample(double lambda, bool tied) {
    GroupingRules rules;
    rules.groups = 5;
    rules.lambda = lambda;
    Grouping grouping(rules);
    const std::vector<double> latency = {3, 6, 11, 16, 28};
    for (int u = 0; u < 50; ++u) {
        const int band = tied ? (u % 10) / 2 : u / 10;
        std::vector<std::uint64_t> labels(10, 0);
        labels[static_cast<std::size_t>(u % 10)] = 100;
        labels[static_cast<std::size_t>((u + 1) % 10)] = 100;
        grouping.update({"c" + std::to_string(100 + u),
                         latency[static_cast<std::size_t>(band)] + 0.01 * u, 200, labels});
    }
    static_cast<void>(grouping.form());
    return grouping;
}

double worst_spread(const Grouping& grouping) {
    double low = 1e9;
    double high = 0;
    for (int g = 0; g < 5; ++g) {
        low = std::min(low, grouping.centre_s(g));
        high = std::max(high, grouping.centre_s(g));
    }
    return high - low;
}

TEST(Grouping, WithoutTheLabelTermItMakesLatencyTiers) {
    const Grouping grouping = sample(0, true);
    for (int u = 0; u < 50; ++u)
        EXPECT_EQ(grouping.group_of("c" + std::to_string(100 + u)),
                  grouping.group_of("c" + std::to_string(100 + u % 10)));
    EXPECT_GT(worst_spread(grouping), 20);
}

TEST(Grouping, IndependentLabelsCostNoLatency) { EXPECT_GT(worst_spread(sample(1, false)), 20); }

TEST(Grouping, TiedLabelsMixTheBands) {
    const Grouping tiers = sample(0, true);
    const Grouping mixed = sample(2, true);
    EXPECT_LT(worst_spread(mixed), worst_spread(tiers) / 2);
}

// Random traces: whatever happens, everybody is in one group or in none, a regrouping ends, never
// raises the cost of who stays, is deterministic, and finds nothing to do when repeated.
TEST(Grouping, PropertiesOverRandomTraces) {
    for (std::uint64_t seed = 1; seed <= 15; ++seed) {
        Rng rng(seed);
        GroupingRules rules;
        rules.groups = static_cast<std::uint32_t>(1 + rng.below(6));
        rules.lambda = rng.uniform(0, 3);
        Grouping grouping(rules);
        Grouping twin(rules);
        std::set<std::string> known;
        for (int event = 0; event < 60; ++event) {
            const std::string name = "c" + std::to_string(rng.below(40));
            ClientFacts facts{name, rng.below(10) == 0 ? 0 : rng.uniform(0.1, 30), 10, {}};
            for (int c = 0; c < 5; ++c)
                facts.label_counts.push_back(rng.below(3) == 0 ? rng.below(50) : 0);
            if (rng.below(15) == 0) facts.latency_s = 1000;
            known.insert(name);
            grouping.update(facts);
            twin.update(facts);
            const auto moves = event == 10 ? grouping.form() : grouping.regroup();
            const auto same = event == 10 ? twin.form() : twin.regroup();
            ASSERT_EQ(moves.size(), same.size());
            for (std::size_t i = 0; i < moves.size(); ++i) {
                ASSERT_EQ(moves[i].cluster, same[i].cluster);
                ASSERT_EQ(moves[i].to, same[i].to);
                ASSERT_EQ(grouping.group_of(moves[i].cluster), moves[i].to);
            }
            std::size_t grouped = 0;
            for (int g = 0; g < static_cast<int>(rules.groups); ++g) grouped += grouping.members(g);
            std::size_t placed = 0;
            for (const std::string& one : known) {
                const int group = grouping.group_of(one);
                ASSERT_GE(group, Grouping::kDropOut);
                ASSERT_LT(group, static_cast<int>(rules.groups));
                placed += group == Grouping::kDropOut ? 0 : 1;
            }
            ASSERT_EQ(placed, grouped);
            Grouping restored(rules);
            restored.restore(Json::parse(grouping.save().dump()));
            ASSERT_EQ(restored.save(), grouping.save());
            ASSERT_DOUBLE_EQ(restored.total_cost(), grouping.total_cost());
        }
        // With nobody dropping out or coming back, PHI only falls.
        const double before = grouping.total_cost();
        std::set<std::string> dropped;
        for (const std::string& one : known)
            if (grouping.group_of(one) == Grouping::kDropOut) dropped.insert(one);
        const auto moves = grouping.regroup();
        bool same_members = true;
        for (const auto& move : moves)
            same_members = same_members && move.from != -1 && move.to != -1;
        if (same_members) {
            EXPECT_LE(grouping.total_cost(), before + 1e-9) << seed;
        }
    }
}

TEST(Grouping, AStragglerDropsOutAndReturns) {
    Grouping grouping = sample(1, false);
    std::vector<std::uint64_t> labels(10, 0);
    labels[0] = labels[1] = 100;
    grouping.update({"c100", 500, 200, labels});
    static_cast<void>(grouping.regroup());
    EXPECT_EQ(grouping.group_of("c100"), Grouping::kDropOut);
    grouping.update({"c100", 4, 200, labels});
    static_cast<void>(grouping.regroup());
    EXPECT_NE(grouping.group_of("c100"), Grouping::kDropOut);
}

TEST(Grouping, SmallNoiseMovesNobody) {
    Grouping grouping = sample(1, false);
    for (int u = 0; u < 50; ++u) {
        std::vector<std::uint64_t> labels(10, 0);
        labels[static_cast<std::size_t>(u % 10)] = labels[static_cast<std::size_t>((u + 1) % 10)] =
            100;
        const std::vector<double> latency = {3, 6, 11, 16, 28};
        grouping.update({"c" + std::to_string(100 + u),
                         latency[static_cast<std::size_t>(u / 10)] + 0.011 * u, 200, labels});
    }
    EXPECT_TRUE(grouping.regroup().empty());
}

TEST(EcoFl, GroupsMixAsynchronouslyByStaleness) {
    Desk desk(settings("eco-fl", {{"min_clients", 8},
                                  {"groups", 2},
                                  {"lambda", 0.0},
                                  {"alpha", 0.5},
                                  {"staleness_a", 1.0},
                                  {"selection", "random"}}));
    for (int i = 0; i < 8; ++i) desk.join("c" + std::to_string(i), i < 4 ? 1 : 20, 10);
    ASSERT_EQ(desk.assigned.size(), 8U);
    for (int i = 0; i < 4; ++i) {
        EXPECT_EQ(desk.group.at("c" + std::to_string(i)), desk.group.at("c0"));
        EXPECT_NE(desk.group.at("c" + std::to_string(4 + i)), desk.group.at("c0"));
    }
    for (int i = 0; i < 4; ++i) desk.deliver("c" + std::to_string(i), static_cast<float>(i));
    EXPECT_FLOAT_EQ(desk.global(), 0.5F * 1.5F);
    for (int i = 4; i < 8; ++i) desk.deliver("c" + std::to_string(i), 4);
    EXPECT_FLOAT_EQ(desk.global(), 0.75F + 0.5F / 2 * 4) << "staleness 1 halves it";
}

TEST(EcoFl, MixingModelsPullsBackToTheBase) {
    Desk desk(settings("eco-fl", {{"min_clients", 8},
                                  {"groups", 2},
                                  {"lambda", 0.0},
                                  {"alpha", 0.5},
                                  {"staleness", "const"},
                                  {"mixing", "model"}}));
    for (int i = 0; i < 8; ++i) desk.join("c" + std::to_string(i), i < 4 ? 1 : 20, 10);
    for (int i = 0; i < 4; ++i) desk.deliver("c" + std::to_string(i), 8);
    EXPECT_FLOAT_EQ(desk.global(), 4);
    for (int i = 4; i < 8; ++i) desk.deliver("c" + std::to_string(i), 2);  // models: 2
    EXPECT_FLOAT_EQ(desk.global(), 0.5F * 4 + 0.5F * 2);
}

TEST(EcoFl, ServesAnAverageOfItsVersionsAndTrainsFromTheNewest) {
    for (const double memory : {0.0, 0.15}) {
        Desk desk(settings(
            "eco-fl", {{"min_clients", 4}, {"groups", 1}, {"alpha", 1.0}, {"average", memory}}));
        for (int i = 0; i < 4; ++i) desk.join("c" + std::to_string(i), 1, 10);
        const auto round = [&](float change) {
            for (int i = 0; i < 4; ++i) desk.deliver("c" + std::to_string(i), change);
        };
        round(8);
        EXPECT_FLOAT_EQ(desk.served(), 8);
        round(-4);
        EXPECT_FLOAT_EQ(desk.global(), 4);
        // Of version 1 a young average remembers 1 / (1 + 10), of version 2 it would 2 / (2 + 10).
        const double second = memory > 0 ? 8.0 / 11 + 4 * 10.0 / 11 : 4;
        EXPECT_NEAR(desk.served(), second, 1e-6);
        desk.restart();
        round(6);
        EXPECT_FLOAT_EQ(desk.global(), 10);
        EXPECT_NEAR(desk.served(), memory * second + (1 - memory) * 10, 1e-6);
    }
}

TEST(EcoFl, SynchronousBetweenGroupsIsOneCommit) {
    Desk desk(settings("eco-fl", {{"min_clients", 8},
                                  {"groups", 2},
                                  {"lambda", 0.0},
                                  {"alpha", 1.0},
                                  {"between", "synchronous"}}));
    for (int i = 0; i < 8; ++i) desk.join("c" + std::to_string(i), i < 4 ? 1 : 20, 10);
    for (int i = 0; i < 4; ++i) desk.deliver("c" + std::to_string(i), 2);
    EXPECT_EQ(desk.version(), 0U);
    for (int i = 4; i < 8; ++i) desk.deliver("c" + std::to_string(i), 4);
    EXPECT_EQ(desk.version(), 1U);
    EXPECT_FLOAT_EQ(desk.global(), 3);
}

TEST(EcoFl, DropOutGroupIsProfiledAndReturns) {
    Desk desk(settings(
        "eco-fl", {{"min_clients", 8}, {"groups", 2}, {"lambda", 0.0}, {"profile_every_s", 30.0}}));
    for (int i = 0; i < 8; ++i) desk.join("c" + std::to_string(i), i < 4 ? 1 : 20, 10);
    desk.deliver("c0", 1, 900);  // it became slow; what it trained still counts
    EXPECT_TRUE(desk.dropped.empty());
    EXPECT_EQ(desk.placed.at("c0"), -1);
    EXPECT_EQ(desk.group.at("c0"), 2U) << "a profiling task";
    desk.deliver("c0", 50, 900);
    EXPECT_EQ(desk.dropped.size(), 1U);
    EXPECT_FALSE(desk.assigned.contains("c0"));
    desk.wait_until(31);
    ASSERT_TRUE(desk.assigned.contains("c0"));
    desk.deliver("c0", 50, 1);  // fast again
    EXPECT_GE(desk.placed.at("c0"), 0);
}

TEST(EcoFl, RestartedAtEveryPointItDecidesAsIfItHadNotBeen) {
    const auto play = [](bool restarts) {
        Desk desk(
            settings("eco-fl", {{"min_clients", 12}, {"clients_per_round", 6}, {"groups", 3}}));
        for (int i = 0; i < 12; ++i) {
            std::vector<std::uint64_t> labels(4, 0);
            labels[static_cast<std::size_t>(i % 4)] = 10;
            desk.join("c" + std::to_string(10 + i), 1 + i, 10, labels);
            if (restarts) desk.restart();
        }
        for (int i = 0; i < 60; ++i) {
            desk.now_s += 1;
            const auto one =
                std::next(desk.assigned.begin(), i % static_cast<int>(desk.assigned.size()));
            desk.deliver(std::string(one->first), 0.01F * static_cast<float>(i % 7),
                         1 + (i * 7) % 20);
            if (restarts) desk.restart();
        }
        return std::tuple(desk.global(), desk.assigned, desk.placed);
    };
    EXPECT_EQ(play(false), play(true));
}

}  // namespace
}  // namespace ecopipe::test
