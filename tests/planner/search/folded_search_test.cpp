#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "planner/schedule/plan_file.h"
#include "planner/schedule/registry.h"
#include "planner/search/partition.h"
#include "planner/search/sliced_search.h"
#include "planner/simulate/simulator.h"
#include "tests/planner/graphs.h"
#include "tests/planner/reference.h"

namespace ecopipe {
namespace {

using reference::Instance;

constexpr double kMisfit = std::numeric_limits<double>::infinity();

// With both gradients' times of every layer.
Instance split_instance(Rng& rng, bool graph) {
    reference::InstanceShape shape;
    shape.layers_min = 2;
    shape.memory_low = 0.3;
    shape.memory_high = 2;
    Instance instance = reference::random_instance(rng, shape);
    if (graph) reference::make_graph(rng, instance.profile);
    for (LayerProfile& layer : instance.profile.layers)
        for (LayerTiming& timing : layer.timing) {
            const double share = rng.uniform(0.3, 0.7);
            timing.input_gradient_ms = share * timing.backward_ms;
            timing.weight_gradient_ms = (1 - share) * timing.backward_ms;
        }
    return instance;
}

// The step with these stages; infinite where they do not fit.
double step_of(const CostModel& model, const GivenSchedule& schedule,
               const std::vector<StageSpan>& stages) {
    for (int device = 0; device < schedule.place.devices(); ++device) {
        double bytes = 0;
        for (int slice = 0; slice < schedule.place.slices(device); ++slice) {
            const auto k = static_cast<std::size_t>(schedule.place.stage(device, slice));
            bytes += model.stage_memory(stages[k]).peak(schedule.peak_in_flight[k]) +
                     waiting_bytes(model.skips(stages), k, schedule.peak_in_flight);
        }
        const auto first = static_cast<std::size_t>(schedule.place.stage(device, 0));
        if (bytes > model.budget_bytes(stages[first].device)) return kMisfit;
    }
    return simulate(model.pipeline(stages, schedule.place), schedule.lists).step_ms;
}

// Over every number and order of devices that begins with the portal's, and all cuts.
double brute_force_ms(const CostModel& model, const Schedule& schedule) {
    double best = kMisfit;
    for (int devices = 1; devices <= model.devices(); ++devices) {
        const GivenSchedule given = given_schedule(schedule, model.micro_batches(), devices, 2);
        const int stages = given.place.stages();
        if (stages > model.layers()) break;
        std::vector<int> order(static_cast<std::size_t>(model.devices()));
        std::iota(order.begin(), order.end(), 0);
        do {
            if (order.front() != static_cast<int>(model.cluster().portal)) continue;
            std::vector<bool> ends(static_cast<std::size_t>(model.layers()) - 1, false);
            std::fill_n(ends.begin(), stages - 1, true);
            do {
                std::vector<StageSpan> spans;
                int first = 0;
                for (int layer = 0; layer < model.layers(); ++layer) {
                    const bool last = layer + 1 == model.layers();
                    if (!last && !ends[static_cast<std::size_t>(layer)]) continue;
                    const int device = given.place.device(static_cast<int>(spans.size()));
                    spans.push_back({order[static_cast<std::size_t>(device)], first, layer, false});
                    first = layer + 1;
                }
                best = std::min(best, step_of(model, given, spans));
            } while (std::prev_permutation(ends.begin(), ends.end()));
        } while (std::next_permutation(order.begin(), order.end()));
    }
    return best;
}

// Layers that cannot be parted are not drawn here.
TEST(FoldedSearch, IsAsGoodAsBruteForceAndBeginsAndEndsAtThePortal) {
    Rng rng(77);
    int found = 0;
    int nothing = 0;
    for (int i = 0; i < 60; ++i) {
        Instance instance = split_instance(rng, i % 3 == 0);
        for (LayerProfile& layer : instance.profile.layers) layer.joined_to_previous = false;
        const Schedule& schedule = i % 2 == 0 ? kVHalf : kVMin;
        const double best = brute_force_ms(reference::model_of(instance), schedule);
        PlanRequest request;
        request.batch = instance.batch;
        request.micro_batches = instance.micro_batches;
        request.schedule = schedule.name;
        const auto plan = search_plan(instance.cluster, {instance.profile}, request);
        ASSERT_EQ(plan.has_value(), best < kMisfit) << i;
        nothing += plan ? 0 : 1;
        if (!plan) continue;
        ++found;
        const std::string& portal = instance.cluster.devices[instance.cluster.portal].name;
        EXPECT_EQ(plan->stages.front().device, portal);
        EXPECT_EQ(plan->stages.back().device, portal);
        EXPECT_EQ(placement_of(*plan), Placement::folded(placement_of(*plan).devices()));
        EXPECT_LE(plan->predicted->step_ms, best * 1.0001) << i;
        EXPECT_GE(plan->predicted->step_ms, plan->predicted->lower_bound_ms * (1 - 1e-9)) << i;
        EXPECT_EQ(plan_text(*parse_plan(plan_text(*plan), "again")), plan_text(*plan));
    }
    EXPECT_GT(found, 30);
    EXPECT_GT(nothing, 0);
}

// Four equal devices, sixteen equal layers that keep much of a micro-batch.
Result<Plan> planned_by_auto(int memory_mib, Recomputation recomputation = Recomputation::kStages) {
    constexpr std::uint64_t kMiB = 1U << 20;
    Cluster cluster;
    cluster.source = "four.yaml";
    cluster.default_link = {10000, 0.01, ""};
    for (const char* name : {"d0", "d1", "d2", "d3"}) {
        Device device;
        device.name = name;
        device.memory_mib = memory_mib;
        cluster.devices.push_back(device);
    }
    ModelProfile profile;
    profile.model = "blocks";
    profile.input = {1};
    profile.input_bytes_per_sample = kMiB / 8;
    for (int layer = 0; layer < 16; ++layer) {
        LayerProfile block;
        block.name = "block" + std::to_string(layer);
        block.parameter_bytes = kMiB / 8;
        block.output_bytes_per_sample = kMiB / 8;
        block.stash_bytes_per_sample = 2 * kMiB;
        block.timing.push_back({1, 1, 2, 1, 1});
        profile.layers.push_back(block);
    }
    PlanRequest request;
    request.batch = request.micro_batches = 16;
    request.schedule = "auto";
    request.twins = false;
    request.recomputation = recomputation;
    return search_plan(cluster, {profile}, request);
}

// A recomputed forward is a third more work; half of the stash needs none of it.
TEST(FoldedSearch, IsTakenByAutoInsteadOfRecomputingAlone) {
    const auto roomy = planned_by_auto(1000);
    ASSERT_TRUE(roomy) << roomy.error().message;
    EXPECT_FALSE(find_schedule(roomy->schedule)->placing == Placing::kFolded) << roomy->schedule;
    const auto tight = planned_by_auto(24);
    ASSERT_TRUE(tight) << tight.error().message;
    EXPECT_EQ(find_schedule(tight->schedule)->placing, Placing::kFolded) << tight->schedule;
    const auto adaptive = planned_by_auto(24, Recomputation::kAdaptive);
    ASSERT_TRUE(adaptive) << adaptive.error().message;
    EXPECT_FALSE(find_schedule(adaptive->schedule)->placing == Placing::kFolded);
}

}  // namespace
}  // namespace ecopipe
