#include "domain/value_graph.h"

#include <gtest/gtest.h>

#include "domain/plan_index.h"
#include "tests/orchestrator/plan_of.h"

namespace ecopipe {
namespace {

// Layers 0 to 5: 0 makes a value for 1, 3 and 4; the others hand on to the next.
ValueGraph with_skip(std::vector<bool> trainable = {true, true, true, true, true, true}) {
    std::vector<ModelValue> values{{-1, 0, {0}}, {0, 0, {1, 3, 4}}, {1, 0, {2}}, {2, 0, {3}},
                                   {3, 0, {4}},  {4, 0, {5}},       {5, 0, {6}}};
    return {std::move(values), {{0}, {1}, {2}, {3, 1}, {4, 1}, {5}, {6}}, std::move(trainable)};
}

using Ways = std::vector<std::pair<int, int>>;  // value, stage; -1: the portal
Ways plain(const std::vector<ValueWay>& ways) {
    Ways out;
    for (const ValueWay& way : ways)
        out.emplace_back(way.value, way.stage ? static_cast<int>(way.stage->value) : -1);
    return out;
}

TEST(ValueGraph, AChainHandsEverythingToTheNextLayer) {
    const ValueGraph chain = ValueGraph::chain({false, true, true});
    EXPECT_TRUE(chain.is_chain());
    EXPECT_EQ(chain.entering({1, 1}), std::vector<int>{1});
    EXPECT_EQ(chain.leaving({1, 2}), std::vector<int>{3});
    EXPECT_FALSE(chain.runs_backward(0));
    EXPECT_FALSE(chain.returns_gradient(1));
    EXPECT_TRUE(chain.returns_gradient(2));
}

TEST(ValueGraph, RunsBackwardWhatSomethingTrainedComesBefore) {
    const ValueGraph graph = with_skip({false, false, true, false, false, false});
    EXPECT_FALSE(graph.runs_backward(0));
    EXPECT_FALSE(graph.runs_backward(1));
    EXPECT_TRUE(graph.runs_backward(2));
    EXPECT_TRUE(graph.runs_backward(5));
    EXPECT_FALSE(graph.returns_gradient(1)) << "nothing before it is trained";
    EXPECT_TRUE(graph.returns_gradient(3));
}

TEST(ValueWays, ASkipPassesOverTheStageBetween) {
    const PlanIndex plan(plan_of({{"a", 0, 0}, {"b", 1, 2}, {"c", 3, 5}}), with_skip());
    EXPECT_EQ(plain(plan.ways_of({0}).arriving), (Ways{{0, -1}}));
    EXPECT_EQ(plain(plan.ways_of({0}).departing), (Ways{{1, 1}, {1, 2}}));
    EXPECT_EQ(plain(plan.ways_of({1}).arriving), (Ways{{1, 0}}));
    EXPECT_EQ(plain(plan.ways_of({2}).arriving), (Ways{{1, 0}, {3, 1}}));
    // c has two of the three users, and the last ones: its sum is the beginning of all.
    EXPECT_EQ(plain(plan.ways_of({2}).returned), (Ways{{1, 0}, {3, 1}}));
    EXPECT_EQ(plain(plan.ways_of({0}).returning), (Ways{{1, 2}, {1, 1}}));
    EXPECT_EQ(plan.neighbours_of("a"), (std::vector<std::string>{"b", "c"}));
    EXPECT_EQ(plan.input_devices(0), std::vector<std::string>{"a"});
    EXPECT_EQ(plan.label_device(0), "c");
}

// Users 1 and 3 on one device, 4 behind it: the sum ((4 + 3) + 1) goes through the one with two.
TEST(ValueWays, AStageWithSeveralUsersAddsToWhatThoseBehindItFound) {
    const PlanIndex plan(plan_of({{"a", 0, 0}, {"b", 1, 3}, {"c", 4, 5}}), with_skip());
    EXPECT_EQ(plain(plan.ways_of({2}).returned), (Ways{{1, 1}, {4, 1}}));
    EXPECT_EQ(plain(plan.ways_of({1}).returning), (Ways{{1, 2}, {4, 2}}));
    EXPECT_EQ(plain(plan.ways_of({1}).returned), (Ways{{1, 0}}));
    EXPECT_EQ(plain(plan.ways_of({0}).returning), (Ways{{1, 1}}));
}

TEST(ValueWays, UsersOnStagesOfTheirOwnSendStraightBack) {
    const PlanIndex plan(plan_of({{"a", 0, 0}, {"b", 1, 2}, {"c", 3, 3}, {"d", 4, 5}}),
                         with_skip());
    EXPECT_EQ(plain(plan.ways_of({0}).returning), (Ways{{1, 3}, {1, 2}, {1, 1}}));
}

TEST(ValueWays, AValueUsedOnItsOwnStageToo) {
    const PlanIndex plan(plan_of({{"a", 0, 3}, {"b", 4, 5}}), with_skip());
    EXPECT_EQ(plain(plan.ways_of({0}).departing), (Ways{{1, 1}, {4, 1}}));
    EXPECT_EQ(plain(plan.ways_of({0}).returning), (Ways{{1, 1}, {4, 1}}));
}

}  // namespace
}  // namespace ecopipe
