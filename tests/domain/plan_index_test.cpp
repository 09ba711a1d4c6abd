#include "domain/plan_index.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

// a 0-1, b 2-3, a 4-5, b 6-7.
Plan interleaved() {
    Plan plan;
    for (int s = 0; s < 4; ++s) {
        StagePlan stage;
        stage.device = s % 2 == 0 ? "a" : "b";
        stage.first_layer = 2 * s;
        stage.last_layer = 2 * s + 1;
        plan.stages.push_back(stage);
    }
    return plan;
}

std::vector<std::string> list(std::span<const std::string> names) {
    return {names.begin(), names.end()};
}

TEST(PlanIndex, KnowsEveryonesStagesAndLayers) {
    const PlanIndex plan(interleaved());
    EXPECT_EQ(plan.devices(), (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(plan.place("b"), 1U);
    EXPECT_FALSE(plan.place("c"));
    EXPECT_FALSE(plan.has("c"));
    EXPECT_TRUE(plan.stages_of("c").empty());
    ASSERT_EQ(plan.stages_of("b").size(), 2U);
    EXPECT_EQ(plan.stages_of("b")[1], StageId{3});
    EXPECT_EQ(plan.layers_of(StageId{3}), (LayerRange{6, 7}));
    EXPECT_EQ(plan.stage_of(5), StageId{2});
    EXPECT_FALSE(plan.stage_of(8));
    EXPECT_FALSE(plan.stage_of(-1));
    EXPECT_EQ(list(plan.holders_of(5)), std::vector<std::string>{"a"});
    EXPECT_TRUE(plan.holds("b", 2));
    EXPECT_FALSE(plan.holds("b", 1));
    EXPECT_FALSE(plan.holds("b", 8));
}

TEST(PlanIndex, KnowsWhoIsBeforeAndAfterWhom) {
    const PlanIndex plan(interleaved());
    EXPECT_TRUE(plan.producers_of(StageId{0}).empty());
    EXPECT_TRUE(plan.consumers_of(StageId{3}).empty());
    ASSERT_EQ(plan.producers_of(StageId{2}).size(), 1U);
    EXPECT_EQ(plan.producers_of(StageId{2}).front(), StageId{1});
    EXPECT_EQ(plan.consumers_of(StageId{2}).front(), StageId{3});
    EXPECT_EQ(plan.input_devices(0), std::vector<std::string>{"a"});
    EXPECT_EQ(plan.label_device(0), "b");
    EXPECT_EQ(plan.neighbours_of("a"), std::vector<std::string>{"b"});
    EXPECT_TRUE(PlanIndex(Plan()).neighbours_of("a").empty());
}

}  // namespace
}  // namespace ecopipe
