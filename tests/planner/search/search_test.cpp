#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "planner/search/partition.h"
#include "tests/planner/graphs.h"
#include "tests/planner/reference.h"

namespace ecopipe {
namespace {

using reference::Instance;
using reference::InstanceShape;

// The whole size of the comparisons takes minutes; ECOPIPE_FULL=1 runs it.
int cases(int usual, int full) { return std::getenv("ECOPIPE_FULL") != nullptr ? full : usual; }

PlanRequest request_of(const Instance& instance, const char* schedule) {
    PlanRequest request;
    request.batch = instance.batch;
    request.micro_batches = instance.micro_batches;
    request.schedule = schedule;
    return request;
}

std::vector<reference::Stage> stages_of(const Instance& instance, const Plan& plan,
                                        std::vector<int>& K) {
    std::vector<reference::Stage> out;
    for (const StagePlan& stage : plan.stages) {
        out.push_back({static_cast<int>(*instance.cluster.find(stage.device)), stage.first_layer,
                       stage.last_layer, stage.recomputed});
        K.push_back(stage.in_flight);
    }
    return out;
}

// The plan's own step must be what the second simulator says of it, within the memory by the second
// formula.
void expect_honest(const Instance& instance, const Plan& plan) {
    std::vector<int> K;
    const auto stages = stages_of(instance, plan, K);
    const double step = reference::step_ms(instance, stages, K, plan.schedule == "gpipe");
    EXPECT_NEAR(plan.predicted->step_ms, step, 1e-9 * step);
    EXPECT_GE(step, plan.predicted->lower_bound_ms * (1 - 1e-12));
    EXPECT_GE(plan.predicted->lower_bound_ms, plan.predicted->cluster_bound_ms * (1 - 1e-9));
    for (std::size_t s = 0; s < stages.size(); ++s) {
        const double peak =
            reference::peak_bytes(instance, stages[s], std::min(K[s], instance.micro_batches));
        EXPECT_NEAR(static_cast<double>(*plan.stages[s].peak_bytes), peak, 1.0);
        EXPECT_LE(peak, reference::budget_bytes(instance, stages[s].device));
    }
}

// Ratio of the plan's step to the brute force's; 1 when both find that nothing fits.
double ratio_to_brute_force(const Instance& instance, const char* schedule, bool all_counts,
                            Recomputation recomputation) {
    const bool gpipe = std::string(schedule) == "gpipe";
    const double best = reference::brute_force_ms(instance, gpipe, all_counts, recomputation);
    PlanRequest request = request_of(instance, schedule);
    request.recomputation = recomputation;
    const auto plan = search_plan(instance.cluster, {instance.profile}, request);
    EXPECT_EQ(plan.has_value(), std::isfinite(best)) << (plan ? "found one" : plan.error().message);
    if (!plan || !std::isfinite(best)) {
        if (!plan) {
            EXPECT_NE(plan.error().message.find("MiB short"), std::string::npos)
                << plan.error().message;
        }
        return 1;
    }
    expect_honest(instance, *plan);
    return plan->predicted->step_ms / best;
}

void equals_brute_force(const char* schedule, bool media, std::uint64_t seed,
                        Recomputation recomputation = Recomputation::kStages) {
    Rng rng(seed);
    int infeasible = 0;
    for (int i = 0; i < cases(60, 200); ++i) {
        InstanceShape shape;
        shape.media = media;
        shape.memory_low = i % 4 == 0 ? 0.02 : 0.3;
        const Instance instance = reference::random_instance(rng, shape);
        const double ratio = ratio_to_brute_force(instance, schedule, true, recomputation);
        EXPECT_NEAR(ratio, 1, 1e-9) << "instance " << i;
        infeasible +=
            !std::isfinite(reference::brute_force_ms(instance, true, true, recomputation)) ? 1 : 0;
    }
    EXPECT_GT(infeasible, 0);  // memory was tight enough to matter
}

TEST(Search, OneForwardOneBackwardEqualsBruteForce) { equals_brute_force("1f1b", false, 1); }
TEST(Search, GpipeEqualsBruteForce) { equals_brute_force("gpipe", false, 2); }
TEST(Search, OneForwardOneBackwardEqualsBruteForceOnSharedMedia) {
    equals_brute_force("1f1b", true, 3);
}
TEST(Search, GpipeEqualsBruteForceOnSharedMedia) { equals_brute_force("gpipe", true, 4); }
TEST(Search, OneForwardOneBackwardWithSegmentsEqualsBruteForce) {
    equals_brute_force("1f1b", false, 7, Recomputation::kSegments);
}
TEST(Search, GpipeWithSegmentsEqualsBruteForceOnSharedMedia) {
    equals_brute_force("gpipe", true, 8, Recomputation::kSegments);
}

// What a refusal advises does help; under schedules that look for no segments it advises nothing.
TEST(Search, ARefusalSaysWhereSegmentsWouldFit) {
    Rng rng(9);
    int advised = 0;
    for (int i = 0; i < 30; ++i) {
        InstanceShape shape;
        shape.layers_min = 3;
        shape.devices_max = shape.devices_min = 1;
        Instance instance = reference::random_instance(rng, shape);
        // Between what segments take and what the whole stage does.
        const CostModel model = reference::model_of(instance);
        StageSpan whole{0, 0, model.layers() - 1, false};
        const double least = model.least_bytes(whole, instance.micro_batches);
        double most = model.stage_memory(whole).peak(1);
        whole.recompute = true;
        most = std::min(most, model.stage_memory(whole).peak(1));
        if (least > 0.99 * most) continue;
        instance.cluster.devices[0].memory_mib =
            instance.profile.process_mib + (least + most) / 2 / 1048576;
        for (const char* schedule : {"1f1b", "gpipe", "zb-h1", "interleaved"}) {
            PlanRequest request = request_of(instance, schedule);
            request.effort = 0.05;
            const auto refused = search_plan(instance.cluster, {instance.profile}, request);
            ASSERT_FALSE(refused);
            const bool advises = refused.error().message.find(
                                     "it fits with --recompute segments") != std::string::npos;
            const bool may = schedule == std::string("1f1b") || schedule == std::string("gpipe");
            EXPECT_EQ(advises, may) << schedule << ": " << refused.error().message;
            if (!may) continue;
            ++advised;
            request.recomputation = Recomputation::kSegments;
            EXPECT_TRUE(search_plan(instance.cluster, {instance.profile}, request)) << i;
        }
    }
    EXPECT_GT(advised, 5);
}

TEST(Search, LargerInstancesAreWithinOnePercentOfBruteForce) {
    Rng rng(5);
    double worst = 0;
    for (int i = 0; i < cases(8, 200); ++i) {
        InstanceShape shape;
        shape.layers_max = cases(6, 8);
        shape.devices_max = cases(3, 4);
        shape.micro_batches_max = cases(10, 16);
        const Instance instance = reference::random_instance(rng, shape);
        for (const char* schedule : {"gpipe", "1f1b"}) {
            const auto may = i % 2 == 0 ? Recomputation::kStages : Recomputation::kSegments;
            const double ratio = ratio_to_brute_force(instance, schedule, false, may);
            EXPECT_LE(ratio, 1.01) << "instance " << i << ' ' << schedule;
            worst = std::max(worst, ratio);
        }
    }
    std::printf("worst ratio to brute force: %.6f\n", worst);
}

}  // namespace
}  // namespace ecopipe
