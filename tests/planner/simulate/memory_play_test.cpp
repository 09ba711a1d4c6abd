#include "planner/simulate/memory_play.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "planner/schedule/plan_file.h"
#include "planner/search/partition.h"
#include "tests/planner/graphs.h"
#include "tests/planner/reference.h"

namespace ecopipe {
namespace {

using reference::Instance;

// A layer keeps its input, as those of real models do.
Instance instance_with_inputs_kept(Rng& rng) {
    reference::InstanceShape shape;
    shape.memory_low = 1;
    Instance instance = reference::random_instance(rng, shape);
    std::uint64_t input = instance.profile.input_bytes_per_sample;
    for (LayerProfile& layer : instance.profile.layers) {
        layer.stash_bytes_per_sample += input;
        input = layer.output_bytes_per_sample;
    }
    return instance;
}

double input_bytes(const Instance& instance, int first) {
    const int samples = (instance.batch + instance.micro_batches - 1) / instance.micro_batches;
    const auto& layers = instance.profile.layers;
    const std::uint64_t each =
        first == 0 ? instance.profile.input_bytes_per_sample
                   : layers[static_cast<std::size_t>(first) - 1].output_bytes_per_sample;
    return static_cast<double>(each) * samples;
}

struct Bounds {
    double low = 0;
    double high = 0;
};

// A stage's weights and moments, all micro-batches in flight but the one that runs, and of that one
// what the layers up to the one that takes most keep. The gradients need not be there then.
Bounds bounds_of(const Instance& instance, const StagePlan& stage, int count) {
    const bool whole = stage.recomputed == Segments{{stage.first_layer, stage.last_layer}};
    const int samples = (instance.batch + instance.micro_batches - 1) / instance.micro_batches;
    double parameters = 0, stash = 0, running = 0;
    for (int l = stage.first_layer; l <= stage.last_layer; ++l) {
        const LayerProfile& layer = instance.profile.layers[static_cast<std::size_t>(l)];
        parameters += static_cast<double>(layer.parameter_bytes);
        stash += static_cast<double>(layer.stash_bytes_per_sample) * samples;
        running = std::max(running,
                           stash + static_cast<double>(layer.workspace_bytes_per_sample) * samples);
    }
    const double waiting =
        !stage.recomputed.empty() ? input_bytes(instance, stage.first_layer) : stash;
    const double low =
        parameters * (1 + instance.profile.optimizer_slots) + (count - 1) * waiting + running;
    if (stage.recomputed.empty() || whole) return {low, low + parameters};
    const double peak = reference::peak_bytes(
        instance, {0, stage.first_layer, stage.last_layer, stage.recomputed}, count);
    return {peak - parameters, peak};
}

// What a search goes by and what is foreseen use by use are one account.
TEST(MemoryPlay, OfSegmentsIsTheirFootprint) {
    Rng rng(9);
    int parts = 0;
    for (int i = 0; i < 200; ++i) {
        const Instance instance = instance_with_inputs_kept(rng);
        const CostModel model = reference::model_of(instance);
        Segments segments;
        for (int layer = 0; layer < model.layers(); ++layer) {
            if (rng.below(3) == 0) continue;
            const bool longer = !segments.empty() && segments.back().last + 1 == layer;
            if (longer && rng.below(2) == 0)
                segments.back().last = layer;
            else
                segments.push_back({layer, layer});
        }
        const StageSpan whole{0, 0, model.layers() - 1, !segments.empty()};
        if (segments.empty() || segments == Segments{{whole.first, whole.last}}) continue;
        ++parts;
        const StageBytes bytes = model.stage_bytes(whole, segments);
        const double running = std::max(bytes.forward.total(), bytes.running.total());
        for (const int count : {1, 3}) {
            const double peak = bytes.weights + bytes.trainable + bytes.moments +
                                (count - 1) * bytes.held + running;
            EXPECT_NEAR(model.stage_memory(whole, segments).peak(count), peak, 1e-6 * peak);
        }
        EXPECT_LE(bytes.held, model.stage_bytes(whole, {}).held);
    }
    EXPECT_GT(parts, 100);
}

TEST(MemoryPlay, IsWhatIsHeldAndWhatIsOnItsWay) {
    Rng rng(5);
    int recomputing = 0;
    for (int i = 0; i < 200; ++i) {
        const Instance instance = instance_with_inputs_kept(rng);
        PlanRequest request;
        request.batch = instance.batch;
        request.micro_batches = instance.micro_batches;
        request.schedule = i % 2 == 0 ? "1f1b" : "gpipe";
        if (i % 3 == 0) request.recomputation = Recomputation::kSegments;
        const auto plan = search_plan(instance.cluster, {instance.profile}, request);
        if (!plan) continue;
        for (std::size_t s = 0; s < plan->stages.size(); ++s) {
            const StagePlan& stage = plan->stages[s];
            const int count = micro_batches_in_flight(*plan, s);
            recomputing += stage.recomputed.empty() ? 0 : 1;
            const Bounds bounds = bounds_of(instance, stage, count);
            const double inputs = count * input_bytes(instance, stage.first_layer);
            const MemoryByUse memory = plan->memory.at(stage.device);
            const auto bytes = [&](MemoryUse use) { return static_cast<double>(memory[use]); };
            const double own = bytes(MemoryUse::kWeights) + bytes(MemoryUse::kGradients) +
                               bytes(MemoryUse::kMoments) + bytes(MemoryUse::kStash) +
                               bytes(MemoryUse::kWorkspace);
            const double slack = 8;  // whole bytes
            EXPECT_LE(own, bounds.high - inputs + slack);
            EXPECT_GE(bytes(MemoryUse::kArriving), inputs - slack);
            EXPECT_GE(static_cast<double>(memory.total()), bounds.low - slack);
            EXPECT_LE(own, static_cast<double>(*stage.peak_bytes) - inputs + slack);
            EXPECT_EQ(predicted_peak_bytes(*plan, stage.device), memory.total());
        }
    }
    EXPECT_GT(recomputing, 5);
}

// Two stages of one layer, two micro-batches of one sample: every number by hand.
TEST(MemoryPlay, TellsEachUseOfASmallPipeline) {
    Cluster cluster;
    for (const char* name : {"a", "b"}) {
        Device device;
        device.name = name;
        device.memory_mib = 1024;
        cluster.devices.push_back(device);
    }
    cluster.default_link.mbps = 8;  // a byte a microsecond
    cluster.default_link.latency_ms = 0;
    ModelProfile profile;
    profile.model = "m";
    profile.device = "a";
    profile.source = "p.json";
    profile.optimizer_slots = 1;
    profile.input_bytes_per_sample = 10;
    for (const char* name : {"0", "1"}) {
        LayerProfile layer;
        layer.name = name;
        layer.parameter_bytes = 20;
        layer.buffer_bytes = 8;
        layer.output_bytes_per_sample = 100;
        layer.stash_bytes_per_sample = 300;
        layer.workspace_bytes_per_sample = 50;
        layer.timing.push_back({1, 1, 2, std::nullopt, std::nullopt});
        profile.layers.push_back(layer);
    }
    Plan plan;
    plan.model = "m";
    plan.batch = 2;
    plan.micro_batches = 2;
    plan.schedule = "gpipe";
    for (int s = 0; s < 2; ++s) {
        StagePlan stage;
        stage.device = s == 0 ? "a" : "b";
        stage.first_layer = stage.last_layer = s;
        stage.in_flight = 2;
        plan.stages.push_back(stage);
    }
    ASSERT_TRUE(predict_plan(cluster, {profile}, plan).has_value());

    const MemoryByUse a = plan.memory.at("a");
    EXPECT_EQ(a[MemoryUse::kWeights], 20U + 16);
    EXPECT_EQ(a[MemoryUse::kMoments], 20U);
    // Both stashes without their inputs, in the second forward as in the first backward; in the
    // former what the first has made is on its way. There are no gradients yet.
    EXPECT_EQ(a[MemoryUse::kGradients], 0U);
    EXPECT_EQ(a[MemoryUse::kStash], 2 * (300U - 10));
    EXPECT_EQ(a[MemoryUse::kWorkspace], 50U);
    // Both inputs and both gradients: the second comes before the first is done with.
    EXPECT_EQ(a[MemoryUse::kArriving], 2 * 10U + 2 * 100);
    EXPECT_EQ(a[MemoryUse::kLeaving], 100U);
    EXPECT_EQ(a[MemoryUse::kEvaluation] + a[MemoryUse::kRecovery], 0U);

    const MemoryByUse b = plan.memory.at("b");
    EXPECT_EQ(b[MemoryUse::kStash], 2 * (300U - 100));
    EXPECT_EQ(b[MemoryUse::kArriving], 2 * 100U);

    const auto again = parse_plan(plan_text(plan), "plan.json");
    ASSERT_TRUE(again.has_value()) << again.error().message;
    EXPECT_EQ(again->memory, plan.memory);
}

}  // namespace
}  // namespace ecopipe
