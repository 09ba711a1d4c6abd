// Every strategy against numbers worked out by hand.
#include <cmath>

#include "fl_server/strategies/staleness.h"
#include "tests/fl_server/strategies/strategy_desk.h"

namespace ecopipe::test {
namespace {

TEST(Staleness, VectorsOfThePapers) {
    const auto weight = [](StalenessWeight::Kind kind, double a, double b, std::uint64_t tau) {
        return StalenessWeight{kind, a, b}.at(tau);
    };
    EXPECT_DOUBLE_EQ(weight(StalenessWeight::Kind::kConst, 0.5, 4, 100), 1);
    EXPECT_DOUBLE_EQ(weight(StalenessWeight::Kind::kPoly, 0.5, 4, 3), 0.5);
    EXPECT_DOUBLE_EQ(weight(StalenessWeight::Kind::kPoly, 1, 4, 3) * 0.99, 0.2475);
    EXPECT_DOUBLE_EQ(weight(StalenessWeight::Kind::kHinge, 10, 4, 4), 1);
    EXPECT_DOUBLE_EQ(weight(StalenessWeight::Kind::kHinge, 10, 4, 6), 1.0 / 21);
}

TEST(FedAvg, WeighsBySamplesAndStartsTheNextRound) {
    Desk desk(settings("fedavg", {{"min_clients", 2}}), 1);
    desk.join("a", 1, 100);
    EXPECT_TRUE(desk.assigned.empty());
    desk.join("b", 1, 300);
    EXPECT_EQ(desk.assigned.size(), 2U);
    desk.deliver("b", 4);
    EXPECT_EQ(desk.version(), 0U);
    desk.deliver("a", -4);
    EXPECT_EQ(desk.version(), 1U);
    EXPECT_FLOAT_EQ(desk.global(), 1 + (-4.0F * 100 + 4 * 300) / 400);
    EXPECT_EQ(desk.assigned, (std::map<std::string, std::uint64_t>{{"a", 1}, {"b", 1}}));
    EXPECT_EQ(desk.commits.back().clusters, (std::vector<std::string>{"a", "b"}));
}

TEST(FedAvg, DeadlineClosesWithWhatThereIsAndTheLateOneIsDropped) {
    Desk desk(settings("fedavg", {{"min_clients", 2}, {"deadline_s", 10}}));
    desk.join("a");
    desk.join("b");
    desk.deliver("a", 2);
    ASSERT_FALSE(desk.wakes.empty());
    EXPECT_DOUBLE_EQ(desk.wakes.back(), 10);
    desk.wait_until(10);
    EXPECT_FLOAT_EQ(desk.global(), 2);
    EXPECT_EQ(desk.assigned.at("a"), 1U);
    desk.deliver("b", 100);
    EXPECT_EQ(desk.dropped, (std::vector<std::string>{"b: late: its round is over"}));
    desk.deliver("a", 1);
    EXPECT_FLOAT_EQ(desk.global(), 3);
    EXPECT_EQ(desk.assigned.size(), 2U) << "b is back in";
}

TEST(FedAvg, ALateUpdateIsUsedWhenAskedForAndWeighsLess) {
    Desk desk(settings("fedavg", {{"min_clients", 2}, {"deadline_s", 10}, {"late", "use"}}));
    desk.join("a");
    desk.join("b");
    desk.deliver("a", 2);
    desk.wait_until(10);
    desk.deliver("b", 8);  // from version 0 while 1 is current: weight 1/sqrt(2)
    EXPECT_TRUE(desk.dropped.empty());
    desk.deliver("a", 1);
    const double w = 1 / std::sqrt(2.0);
    EXPECT_NEAR(desk.global(), 2 + (8 * w + 1) / (w + 1), 1e-5);
}

TEST(FedAvg, OverSelectionTakesTheFirst) {
    Desk desk(settings("fedavg",
                       {{"min_clients", 4}, {"clients_per_round", 2}, {"over_selection", 1.5}}));
    for (const char* name : {"a", "b", "c", "d"}) desk.join(name);
    ASSERT_EQ(desk.assigned.size(), 3U);
    std::vector<std::string> asked;
    for (const auto& [name, version] : desk.assigned) asked.push_back(name);
    desk.deliver(asked[2], 1);
    desk.deliver(asked[0], 3);
    EXPECT_EQ(desk.version(), 1U);
    EXPECT_FLOAT_EQ(desk.global(), 2);
    desk.deliver(asked[1], 50);
    EXPECT_EQ(desk.dropped.size(), 1U);
    EXPECT_FLOAT_EQ(desk.global(), 2);
}

TEST(FedAvg, AFailedClientIsNotWaitedForAndOneThatLeftIsUntilTheDeadline) {
    Desk desk(settings("fedavg", {{"min_clients", 3}, {"deadline_s", 10}}));
    for (const char* name : {"a", "b", "c"}) desk.join(name);
    desk.deliver("a", 2);
    desk.leave("b");
    desk.fail("c");
    EXPECT_EQ(desk.version(), 0U) << "b may come back with its update";
    desk.deliver("b", 4);
    EXPECT_FLOAT_EQ(desk.global(), 3);
}

TEST(FedAvg, ARoundWithoutUpdatesIsOpenedAgain) {
    Desk desk(settings("fedavg", {{"min_clients", 2}}));
    desk.join("a");
    desk.join("b");
    desk.fail("a");
    desk.fail("b");
    EXPECT_EQ(desk.version(), 0U);
    EXPECT_EQ(desk.assigned.size(), 2U);
}

TEST(FedAvg, RestartedAtEveryPointItDecidesAsIfItHadNotBeen) {
    const auto play = [](bool restarts) {
        Desk desk(settings("fedavg", {{"min_clients", 3}, {"clients_per_round", 2}}));
        for (const char* name : {"a", "b", "c"}) {
            desk.join(name, 1, 10);
            if (restarts) desk.restart();
        }
        for (int i = 0; i < 12; ++i) {
            desk.deliver(desk.assigned.begin()->first, static_cast<float>(i));
            if (restarts) desk.restart();
        }
        return std::pair(desk.global(), desk.assigned);
    };
    EXPECT_EQ(play(false), play(true));
}

TEST(FedAvgM, MomentumOfTheServer) {
    Desk desk(settings("fedavgm", {{"min_clients", 1}, {"momentum", 0.5}, {"server_lr", 1.0}}));
    desk.join("a");
    desk.deliver("a", 2);  // m = 2
    EXPECT_FLOAT_EQ(desk.global(), 2);
    desk.deliver("a", 2);  // m = 0.5 * 2 + 2 = 3
    EXPECT_FLOAT_EQ(desk.global(), 5);
}

TEST(FedAdam, AlgorithmTwoOfReddi) {
    Desk desk(settings("fedadam", {{"min_clients", 1}, {"server_lr", 0.1}, {"tau", 1e-3}}));
    desk.join("a");
    desk.deliver("a", 2);
    // m = 0.1 * 2, v = 0.99 * tau^2 + 0.01 * 4
    const double v1 = 0.99 * 1e-6 + 0.04;
    const double first = 0.1 * 0.2 / (std::sqrt(v1) + 1e-3);
    EXPECT_NEAR(desk.global(), first, 1e-6);
    desk.deliver("a", 1);
    const double m = 0.9 * 0.2 + 0.1;
    const double v = 0.99 * v1 + 0.01;
    EXPECT_NEAR(desk.global(), first + 0.1 * m / (std::sqrt(v) + 1e-3), 1e-6);
}

TEST(FedYogi, AlgorithmTwoOfReddi) {
    Desk desk(settings("fedyogi", {{"min_clients", 1}, {"server_lr", 0.01}, {"tau", 1e-3}}));
    desk.join("a");
    desk.deliver("a", 2);
    // v = 0 - 0.01 * 4 * sign(0 - 4)
    const double first = 0.01 * 0.2 / (std::sqrt(0.04) + 1e-3);
    EXPECT_NEAR(desk.global(), first, 1e-6);
    desk.deliver("a", 0.1F);
    const double v = 0.04 - 0.01 * 0.01;  // v > delta^2: it falls
    EXPECT_NEAR(desk.global(), first + 0.01 * (0.9 * 0.2 + 0.01) / (std::sqrt(v) + 1e-3), 1e-6);
}

TEST(FedAsync, MixesEachUpdateByItsStaleness) {
    Desk desk(settings("fedasync", {{"alpha", 0.5}, {"staleness", "poly"}, {"staleness_a", 1}}), 0);
    desk.join("a");
    desk.join("b");
    desk.deliver("a", 4);  // fresh: 0.5 * 0 + 0.5 * 4
    EXPECT_FLOAT_EQ(desk.global(), 2);
    EXPECT_EQ(desk.assigned.at("a"), 1U);
    desk.deliver("b", 8);  // staleness 1: a_t = 0.25; w_b = 8
    EXPECT_FLOAT_EQ(desk.global(), 0.75F * 2 + 0.25F * 8);
}

// Each from version 0, mixed in one after another: tau is 0, 1, 2, ...
TEST(FedAsync, ConstAndHingeThroughTheMix) {
    const auto after = [](std::map<std::string, Json> values) {
        values["alpha"] = 0.5;
        values["min_clients"] = 4;
        Desk desk(settings("fedasync", values), 0);
        for (const char* name : {"a", "b", "c", "d"}) desk.join(name);
        std::vector<float> models;
        for (const char* name : {"a", "b", "c", "d"}) {
            EXPECT_EQ(desk.assigned.at(name), 0U);
            desk.deliver(name, 8);
            models.push_back(desk.global());
        }
        return models;
    };
    // a_t = 1/2 always: 4, (4 + 8) / 2, (6 + 8) / 2, (7 + 8) / 2.
    EXPECT_EQ(after({{"staleness", "const"}}), (std::vector<float>{4, 6, 7, 7.5F}));
    // Free up to tau = 1, then 1 / (a (tau - b) + 1) with a = 3: 1/4 and 1/7 of alpha.
    const std::vector<float> hinge =
        after({{"staleness", "hinge"}, {"staleness_a", 3}, {"staleness_b", 1}});
    EXPECT_FLOAT_EQ(hinge[0], 4);
    EXPECT_FLOAT_EQ(hinge[1], 6);
    EXPECT_FLOAT_EQ(hinge[2], 6 + (8 - 6) / 8.0F);           // 6.25
    EXPECT_FLOAT_EQ(hinge[3], 6.25F + (8 - 6.25F) / 14.0F);  // 6.375
}

TEST(FedAsync, KeepsSoManyAtWorkAndDropsTheTooStale) {
    Desk desk(
        settings("fedasync", {{"clients_per_round", 2}, {"max_staleness", 1}, {"min_clients", 4}}));
    for (const char* name : {"a", "b", "c", "d"}) desk.join(name);
    ASSERT_EQ(desk.assigned.size(), 2U);
    const std::string slow = desk.assigned.begin()->first;
    for (int i = 0; i < 2; ++i) {
        const auto other = std::prev(desk.assigned.end());
        desk.deliver((other->first == slow ? desk.assigned.begin() : other)->first, 1);
        EXPECT_EQ(desk.assigned.size(), 2U);
        if (!desk.assigned.contains(slow)) GTEST_FAIL();
    }
    const float before = desk.global();
    desk.deliver(slow, 1000);
    EXPECT_FLOAT_EQ(desk.global(), before);
    EXPECT_EQ(desk.dropped,
              (std::vector<std::string>{slow + ": stale: 2 versions, at most 1 count"}));
}

TEST(FedBuff, DividesByKAndNotByTheWeights) {
    Desk desk(settings("fedbuff", {{"buffer", 2}, {"min_clients", 3}, {"server_lr", 0.5}}));
    for (const char* name : {"a", "b", "c"}) desk.join(name);
    desk.deliver("a", 2);
    EXPECT_EQ(desk.version(), 0U);
    desk.deliver("b", 6);
    EXPECT_FLOAT_EQ(desk.global(), 0.5F * (2 + 6) / 2);
    desk.deliver("a", 1);  // fresh is what started after the commit: a started before it
    desk.deliver("c", 1);
    const double stale = 1 / std::sqrt(2.0);
    EXPECT_NEAR(desk.global(), 2 + 0.5 * (2 * stale) / 2, 1e-6);
}

TEST(FedAt, RecombinesStoredTiersWithMirroredCounts) {
    Desk desk(settings("fedat", {{"tiers", 2}, {"min_clients", 2}}));
    desk.join("fast", 1);
    desk.join("slow", 10);
    EXPECT_EQ(desk.group.at("fast"), 0U);
    EXPECT_EQ(desk.group.at("slow"), 1U);
    desk.deliver("fast", 1);
    EXPECT_FLOAT_EQ(desk.global(), 1) << "the first update of a fast tier is not lost";
    desk.deliver("fast", 1);
    EXPECT_FLOAT_EQ(desk.global(), 2);
    desk.deliver("slow", 6);  // from version 0: its tier's model is 6. T = (2, 1)
    EXPECT_FLOAT_EQ(desk.global(), (1.0F / 3) * 2 + (2.0F / 3) * 6);
}

// Tier 1 of 0, 1, 2 says nothing yet: the mirror runs over tiers 0 and 2.
TEST(FedAt, ATierThatIsSilentHasNoPartInTheMirror) {
    Desk desk(settings("fedat", {{"tiers", 3}, {"min_clients", 3}}));
    desk.join("fast", 1);
    desk.join("silent", 10);
    desk.join("slow", 100);
    for (const auto& [name, tier] :
         std::map<std::string, std::uint32_t>{{"fast", 0}, {"silent", 1}, {"slow", 2}})
        ASSERT_EQ(desk.group.at(name), tier) << name;
    for (int i = 0; i < 3; ++i) desk.deliver("fast", 2);
    EXPECT_FLOAT_EQ(desk.global(), 6);
    desk.deliver("slow", 10);  // T = (3, 0, 1): 1/4 of w_0 = 6, 3/4 of w_2 = 10
    EXPECT_FLOAT_EQ(desk.global(), 9);
    desk.deliver("fast", 3);  // w_0 = 6 + 3, from before slow came; T = (4, 0, 1)
    EXPECT_FLOAT_EQ(desk.global(), (1.0F / 5) * 9 + (4.0F / 5) * 10);
    desk.deliver("silent", 20);  // from version 0: T = (4, 1, 1), mirrored (1, 1, 4)
    EXPECT_FLOAT_EQ(desk.global(), (9 + 20 + 4 * 10) / 6.0F);
}

TEST(FedAt, TheDeadlineOfATierNamesItsLateAfterOthersHaveCommitted) {
    Desk desk(settings("fedat", {{"tiers", 2}, {"min_clients", 4}, {"deadline_s", 10}}));
    desk.join("fast-1", 1);
    desk.join("fast-2", 1);
    desk.join("slow-1", 10);
    desk.join("slow-2", 10);
    desk.deliver("fast-1", 1);
    desk.now_s = 1;
    desk.deliver("fast-2", 1);
    ASSERT_EQ(desk.version(), 1U);
    EXPECT_TRUE(desk.commits.back().late.empty());
    desk.deliver("slow-1", 1);
    desk.wait_until(10);  // the fast tier's second round has a second left
    ASSERT_EQ(desk.version(), 2U);
    EXPECT_EQ(desk.commits.back().clusters, (std::vector<std::string>{"slow-1"}));
    EXPECT_EQ(desk.commits.back().late, (std::vector<std::string>{"slow-2"}));
}

TEST(FedAt, SharesThoseAtWorkAmongTiers) {
    Desk desk(settings("fedat", {{"tiers", 2}, {"min_clients", 8}, {"clients_per_round", 4}}));
    for (int i = 0; i < 8; ++i) desk.join("c" + std::to_string(i), 1 + i);
    ASSERT_EQ(desk.assigned.size(), 4U);
    int fast = 0;
    for (const auto& [name, version] : desk.assigned) fast += desk.group.at(name) == 0 ? 1 : 0;
    EXPECT_EQ(fast, 2);
    for (const auto& [name, version] : desk.assigned)
        EXPECT_EQ(desk.group.at(name), name < "c4" ? 0U : 1U);
}

TEST(Tifl, TrainsOneTierARoundAndPrefersTheWorse) {
    Desk desk(settings("tifl", {{"tiers", 2}, {"min_clients", 4}, {"interval", 4}}));
    for (int i = 0; i < 4; ++i) desk.join("c" + std::to_string(i), i < 2 ? 1 : 10);
    int fast = 0;
    for (int round = 0; round < 400; ++round) {
        std::set<bool> tiers;
        std::vector<std::string> names;
        for (const auto& [name, version] : desk.assigned) {
            tiers.insert(name < "c2");
            names.push_back(name);
        }
        ASSERT_EQ(tiers.size(), 1U);
        fast += *tiers.begin() ? 1 : 0;
        desk.accuracy = *tiers.begin() ? 0.9F : 0.2F;
        for (const std::string& name : names) desk.deliver(name, 0);
    }
    // p of the better tier is 1/3.
    EXPECT_NEAR(fast, 133, 35);
}

TEST(Tifl, ARoundIsTheWeightedMeanOfOneTier) {
    Desk desk(settings("tifl", {{"tiers", 2}, {"min_clients", 4}}), 1);
    desk.join("fast-1", 1, 100);
    desk.join("fast-2", 1, 300);
    desk.join("slow-1", 10, 200);
    desk.join("slow-2", 10, 200);
    ASSERT_EQ(desk.assigned.size(), 2U);
    const bool fast = desk.assigned.contains("fast-1");
    ASSERT_TRUE(desk.assigned.contains(fast ? "fast-2" : "slow-2"));
    desk.deliver(fast ? "fast-1" : "slow-1", 4);
    EXPECT_EQ(desk.version(), 0U);
    desk.deliver(fast ? "fast-2" : "slow-2", 8);
    EXPECT_EQ(desk.version(), 1U);
    EXPECT_FLOAT_EQ(desk.global(), 1 + (fast ? (4.0F * 100 + 8 * 300) / 400 : 6));
}

TEST(Robust, MedianAndTrimmedMeanAndKrumBearALiar) {
    const auto after = [](RobustSettings robust) {
        StrategySettings with = settings("fedavg", {{"min_clients", 5}});
        with.robust = robust;
        Desk desk(with);
        const std::vector<float> deltas = {1, 2, 3, 4, 1000};
        for (int i = 0; i < 5; ++i) desk.join("c" + std::to_string(i));
        for (int i = 0; i < 5; ++i)
            desk.deliver("c" + std::to_string(i), deltas[static_cast<std::size_t>(i)]);
        return desk.global();
    };
    RobustSettings robust;
    robust.rule = Combine::Rule::kCoordinateMedian;
    EXPECT_FLOAT_EQ(after(robust), 3);
    robust.rule = Combine::Rule::kTrimmedMean;
    robust.trim = 0.2;
    EXPECT_FLOAT_EQ(after(robust), 3);
    robust.rule = Combine::Rule::kMultiKrum;
    robust.byzantine = 1;
    robust.keep = 2;
    // Scores over the 2 nearest: 1: 1+4, 2: 1+1, 3: 1+1, 4: 1+4.
    EXPECT_FLOAT_EQ(after(robust), 2.5F);
}

TEST(Robust, TooFewAreRefused) {
    StrategySettings with = settings("fedavg", {{"min_clients", 1}, {"clients_per_round", 2}});
    with.robust.rule = Combine::Rule::kCoordinateMedian;
    const auto made = make_strategy(with);
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, ExitCode::kUsage);
    with = settings("fedasync");
    with.robust.rule = Combine::Rule::kMultiKrum;
    EXPECT_FALSE(make_strategy(with));

    with = settings("fedavg", {{"min_clients", 3}, {"deadline_s", 5}});
    with.robust.rule = Combine::Rule::kCoordinateMedian;
    Desk desk(with);
    for (const char* name : {"a", "b", "c"}) desk.join(name);
    desk.deliver("a", 1);
    desk.deliver("b", 2);
    desk.wait_until(5);
    EXPECT_EQ(desk.version(), 0U);
    ASSERT_EQ(desk.dropped.size(), 2U);
    EXPECT_NE(desk.dropped[0].find("needs 3 updates, found 2"), std::string::npos)
        << desk.dropped[0];
}

TEST(Strategies, AnUnknownNameIsRefusedWithTheKnownOnes) {
    const auto made = find_strategy("fedsgd");
    ASSERT_FALSE(made);
    EXPECT_NE(made.error().message.find("eco-fl"), std::string::npos);
}

}  // namespace
}  // namespace ecopipe::test
