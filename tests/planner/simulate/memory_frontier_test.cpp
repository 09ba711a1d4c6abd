#include "planner/simulate/memory_frontier.h"

#include <gtest/gtest.h>

#include "planner/schedule/plan_file.h"
#include "planner/search/partition.h"
#include "tests/planner/graphs.h"

namespace ecopipe {
namespace {

using reference::Instance;

PlanRequest adaptive(const Instance& instance, const char* schedule) {
    PlanRequest request;
    request.batch = instance.batch;
    request.micro_batches = instance.micro_batches;
    request.schedule = schedule;
    request.recomputation = Recomputation::kAdaptive;
    return request;
}

// The plan with one device at a point of its frontier.
Plan moved(Plan plan, const std::string& device, const MemoryPoint& point) {
    for (StagePlan& stage : plan.stages)
        if (stage.device == device)
            stage.recomputed = within(point.recomputed, {stage.first_layer, stage.last_layer});
    return plan;
}

TEST(MemoryFrontier, EachPointTakesLessAndLongerThanTheOneBefore) {
    Rng rng(51);
    int points = 0;
    int devices = 0;
    int exact = 0;
    int on_it = 0;  // plans' own points
    for (int i = 0; i < 60; ++i) {
        reference::InstanceShape shape;
        shape.layers_min = 3;
        shape.memory_low = 0.3;
        Instance instance = reference::random_instance(rng, shape);
        if (i % 3 == 0) reference::make_graph(rng, instance.profile);
        const char* schedule = i % 4 == 0 ? "gpipe" : i % 4 == 1 ? "interleaved" : "1f1b";
        const auto plan =
            search_plan(instance.cluster, {instance.profile}, adaptive(instance, schedule));
        if (!plan) continue;
        for (const auto& [device, frontier] : plan->frontiers) {
            ++devices;
            ASSERT_FALSE(frontier.empty());
            points += static_cast<int>(frontier.size());
            EXPECT_EQ(frontier.front().recompute_ms, 0);
            std::uint64_t before = UINT64_MAX;
            double before_ms = -1;
            for (const MemoryPoint& point : frontier) {
                EXPECT_LT(point.peak_bytes, before);
                EXPECT_GT(point.recompute_ms, before_ms);
                before = point.peak_bytes;
                before_ms = point.recompute_ms;
                Plan other = moved(*plan, device, point);
                ASSERT_TRUE(predict_plan(instance.cluster, {instance.profile}, other));
                const std::uint64_t as_predicted = other.memory.at(device).total();
                EXPECT_LE(as_predicted, point.peak_bytes) << i;
                exact += as_predicted == point.peak_bytes ? 1 : 0;
            }
            const Segments own = recomputed_on(*plan, device);
            on_it += std::any_of(frontier.begin(), frontier.end(),
                                 [&](const auto& point) { return point.recomputed == own; })
                         ? 1
                         : 0;
        }
        const auto again = parse_plan(plan_text(*plan), "plan");
        ASSERT_TRUE(again) << again.error().message;
        EXPECT_EQ(again->frontiers, plan->frontiers);
    }
    EXPECT_GT(points, 2 * devices);
    EXPECT_GT(2 * exact, points);
    EXPECT_GT(20 * on_it, 19 * devices);  // else a point that is no slower takes less
}

// Unasked, nothing of it stands in a plan.
TEST(MemoryFrontier, IsThereWhereItIsAskedFor) {
    Rng rng(52);
    const Instance instance = reference::random_instance(rng, {});
    PlanRequest request = adaptive(instance, "1f1b");
    request.recomputation = Recomputation::kSegments;
    const auto plan = search_plan(instance.cluster, {instance.profile}, request);
    ASSERT_TRUE(plan) << plan.error().message;
    EXPECT_TRUE(plan->frontiers.empty());
    EXPECT_EQ(plan_text(*plan).find("frontiers"), std::string::npos);
    EXPECT_EQ(*parse_recomputation("adaptive"), Recomputation::kAdaptive);
    EXPECT_FALSE(parse_recomputation("some"));
}

TEST(MemoryFrontier, IsOnePointWhereGradientsAreApart) {
    Rng rng(53);
    for (int i = 0; i < 20; ++i) {
        const Instance instance = reference::random_instance(rng, {});
        const auto plan =
            search_plan(instance.cluster, {instance.profile}, adaptive(instance, "zb-h1"));
        if (!plan) continue;
        for (const auto& [device, frontier] : plan->frontiers) EXPECT_EQ(frontier.size(), 1U);
    }
}

}  // namespace
}  // namespace ecopipe
