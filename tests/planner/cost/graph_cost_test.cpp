// Costs, simulation and bounds of models that are graphs: what goes between which stages.

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "domain/plan_index.h"
#include "planner/schedule/registry.h"
#include "planner/search/in_flight.h"
#include "planner/simulate/bounds.h"
#include "planner/simulate/recurrence.h"
#include "planner/simulate/simulator.h"
#include "tests/planner/graphs.h"

namespace ecopipe {
namespace {

using reference::Instance;
using reference::InstanceShape;

// Equal devices with a millisecond of latency and 8 Mbit/s: a byte takes a microsecond.
Cluster equal_devices(int count) {
    std::string text = "name: c\nportal: d0\nportal_address: 10.0.0.1\ndevices:\n";
    for (int d = 0; d < count; ++d)
        text += "  - {name: d" + std::to_string(d) + ", memory_mib: 64, speed: 1}\n";
    auto cluster = parse_cluster(text + "default_link: {mbps: 8, latency_ms: 1}\n", "c.yaml");
    EXPECT_TRUE(cluster) << (cluster ? "" : cluster.error().message);
    return *cluster;
}

// Layers of 1 ms forward and 2 ms backward with these values.
ModelProfile profile_of(int layers, std::vector<ValueProfile> values) {
    ModelProfile profile;
    profile.model = "graph";
    profile.device = "d0";
    profile.source = "p.json";
    for (int l = 0; l < layers; ++l) {
        LayerProfile layer;
        layer.name = std::to_string(l);
        layer.parameter_bytes = 100;
        layer.stash_bytes_per_sample = 5000;
        layer.timing.push_back({1, 1, 2, std::nullopt, std::nullopt});
        profile.layers.push_back(layer);
    }
    profile.values = std::move(values);
    reference::add_up_cuts(profile);
    return profile;
}

std::map<std::pair<int, int>, double> occupied(const std::vector<StageEdge>& edges) {
    std::map<std::pair<int, int>, double> out;
    for (const StageEdge& edge : edges)
        out[{edge.from, edge.to}] = std::round(edge.transfer.occupy_ms * 1e6) / 1e6;
    return out;
}

// Layer 0's second value is for layer 2 alone: 3,000 bytes that the stage between never sees.
TEST(GraphCosts, ASkipOverAStageTakesItsOwnLinkOnceAndTheOthersNever) {
    const ModelProfile profile = profile_of(3, {{-1, {0}, 10, true},
                                                {0, {1}, 500, true},
                                                {0, {2}, 3000, true},
                                                {1, {2}, 700, true},
                                                {2, {3}, 20, true}});
    const CostModel model = reference::model_of(equal_devices(3), profile, 4, 4);
    const std::vector<StageSpan> stages{{0, 0, 0, false}, {1, 1, 1, false}, {2, 2, 2, false}};
    const PipelineCosts costs = model.pipeline(stages, Placement::cyclic(3));
    ASSERT_TRUE(costs.graph);
    EXPECT_TRUE(costs.forward.empty() && costs.backward.empty() && !costs.feed);
    const std::map<std::pair<int, int>, double> down{{{0, 1}, 0.5}, {{0, 2}, 3}, {{1, 2}, 0.7}};
    const std::map<std::pair<int, int>, double> up{{{1, 0}, 0.5}, {{2, 0}, 3}, {{2, 1}, 0.7}};
    EXPECT_EQ(occupied(costs.values), down);
    EXPECT_EQ(occupied(costs.gradients), up);
    std::vector<ActionList> lists;
    for (const int count : {3, 2, 1}) lists.push_back(one_f_one_b_actions(4, count));
    std::map<std::string, double> busy;
    for (const TransferSpan& span : simulate(costs, lists).transfers)
        busy[costs.resources[static_cast<std::size_t>(span.resource)].name] +=
            span.end_ms - span.start_ms;
    EXPECT_NEAR(busy["link d0-d2"], 4 * 3, 1e-9);
    EXPECT_NEAR(busy["link d2-d0"], 4 * 3, 1e-9);
    EXPECT_NEAR(busy["link d0-d1"], 4 * 0.5, 1e-9);
    EXPECT_NEAR(busy["link d1-d2"], 4 * 0.7, 1e-9);
}

// A value with users on three stages, two of them on the second: the last one's gradient goes
// through there, as PlanIndex has it, and the first stage gets one sum.
TEST(GraphCosts, GradientsOfSeveralUsersGoTheWaysOfThePlan) {
    const ModelProfile profile = profile_of(4, {{-1, {0}, 10, true},
                                                {0, {1, 2, 3}, 1000, true},
                                                {1, {2}, 1, true},
                                                {2, {3}, 1, true},
                                                {3, {4}, 1, true}});
    const CostModel model = reference::model_of(equal_devices(3), profile, 1, 1);
    const std::vector<StageSpan> stages{{0, 0, 0, false}, {1, 1, 2, false}, {2, 3, 3, false}};
    const std::map<std::pair<int, int>, double> up{{{1, 0}, 1}, {{2, 1}, 1.001}};
    EXPECT_EQ(occupied(model.pipeline(stages, Placement::cyclic(3)).gradients), up);
}

// Two branches of three layers, each on a device of its own, beside one another.
TEST(GraphCosts, BranchesOnTwoDevicesOverlap) {
    const ModelProfile profile = profile_of(8, {{-1, {0}, 10, true},
                                                {0, {1, 4}, 100, true},
                                                {1, {2}, 100, true},
                                                {2, {3}, 100, true},
                                                {3, {7}, 100, true},
                                                {4, {5}, 100, true},
                                                {5, {6}, 100, true},
                                                {6, {7}, 100, true},
                                                {7, {8}, 10, true}});
    ModelProfile as_chain = profile;
    as_chain.values.clear();
    const Cluster cluster = equal_devices(4);
    const std::vector<StageSpan> stages{
        {0, 0, 0, false}, {1, 1, 3, false}, {2, 4, 6, false}, {3, 7, 7, false}};
    const auto step = [&](const ModelProfile& of, int count) {
        const CostModel model = reference::model_of(cluster, of, count, count);
        std::vector<ActionList> lists;
        for (int s = 0; s < 4; ++s)
            lists.push_back(one_f_one_b_actions(count, std::min(count, 7 - 2 * s)));
        return simulate(model.pipeline(stages, Placement::cyclic(4)), lists).step_ms;
    };
    // One micro-batch: a millisecond, both branches' three, another; twice that up; four ways.
    EXPECT_NEAR(step(profile, 1), 5 + 10 + 4 * 1.1, 1e-9);
    EXPECT_LT(step(profile, 1), step(as_chain, 1) - 9);
    EXPECT_LT(step(profile, 4), step(as_chain, 4) - 5);
}

TEST(GraphCosts, NeighboursBetweenWhichNothingGoesDoNotWait) {
    // Layer 1 takes an input of its own; both go to layer 2.
    const ModelProfile profile = profile_of(3, {{-1, {0}, 10, true},
                                                {-1, {1}, 2000, true},
                                                {0, {2}, 100, true},
                                                {1, {2}, 100, true},
                                                {2, {3}, 10, true}});
    const CostModel model = reference::model_of(equal_devices(3), profile, 1, 1);
    const PipelineCosts costs = model.pipeline(
        {{0, 0, 0, false}, {1, 1, 1, false}, {2, 2, 2, false}}, Placement::cyclic(3));
    // The portal runs the first stage; the other input comes to the second over a link.
    const std::map<std::pair<int, int>, double> down{{{-1, 1}, 2}, {{0, 2}, 0.1}, {{1, 2}, 0.1}};
    EXPECT_EQ(occupied(costs.values), down);
    const Timeline timeline = simulate(
        costs, {one_f_one_b_actions(1, 1), one_f_one_b_actions(1, 1), one_f_one_b_actions(1, 1)});
    for (const ActionSpan& span : timeline.actions)
        if (span.stage == 1 && span.action.kind == ActionKind::kForward) {
            EXPECT_NEAR(span.start_ms, 3, 1e-9);  // 2 ms on the wire, 1 of latency
        }
}

Instance random_graph(Rng& rng, const InstanceShape& shape) {
    Instance instance = reference::random_instance(rng, shape);
    reference::make_graph(rng, instance.profile);
    for (LayerProfile& layer : instance.profile.layers) {
        LayerTiming& timing = layer.timing[0];
        timing.weight_gradient_ms = timing.backward_ms * rng.uniform(0.3, 0.7);
        timing.input_gradient_ms = timing.backward_ms - *timing.weight_gradient_ms;
    }
    return instance;
}

InstanceShape wide() {
    InstanceShape shape;
    shape.layers_min = 3;
    shape.layers_max = 12;
    shape.devices_max = 6;
    shape.micro_batches_max = 9;
    return shape;
}

std::vector<int> random_counts(Rng& rng, std::size_t stages, int micro_batches) {
    std::vector<int> counts;
    int above = micro_batches;
    for (std::size_t s = 0; s < stages; ++s)
        counts.push_back(above =
                             1 + static_cast<int>(rng.below(static_cast<std::uint64_t>(above))));
    return counts;
}

// The bytes between stages are those that PlanIndex sends, slices included.
TEST(GraphCosts, AreOfTheWaysThatAPlanHas) {
    Rng rng(30);
    for (int i = 0; i < 500; ++i) {
        const Instance instance = random_graph(rng, wide());
        const int slices = 1 + static_cast<int>(rng.below(2));
        const std::vector<StageSpan> stages = reference::random_stages(rng, instance, 4, slices);
        Plan plan;
        for (const StageSpan& span : stages) {
            StagePlan stage;
            stage.device = instance.cluster.devices[static_cast<std::size_t>(span.device)].name;
            stage.first_layer = span.first;
            stage.last_layer = span.last;
            plan.stages.push_back(stage);
        }
        const ValueGraph flow = instance.profile.flow();
        const PlanIndex index(plan, flow);
        const auto bytes = [&](int value) {
            return static_cast<double>(
                instance.profile.values[static_cast<std::size_t>(value)].bytes_per_sample);
        };
        using Bytes = std::map<std::pair<std::string, std::string>, double>;
        Bytes down, up;
        for (std::uint32_t s = 0; s < index.stage_count(); ++s) {
            const std::string& here = index.devices_of({s}).front();
            std::set<std::pair<int, std::string>> sent;
            for (const ValueWay& way : index.ways_of({s}).departing) {
                const std::string& to = index.devices_of(*way.stage).front();
                if (to != here && sent.emplace(way.value, to).second)
                    down[{here, to}] += bytes(way.value);
            }
            for (const ValueWay& way : index.ways_of({s}).returned)
                if (const std::string& to = index.devices_of(*way.stage).front(); to != here)
                    up[{here, to}] += bytes(way.value);
        }
        const std::string& portal = instance.cluster.devices[instance.cluster.portal].name;
        for (std::size_t input = 0;
             input < instance.profile.values.size() && instance.profile.values[input].producer < 0;
             ++input)
            for (const std::string& to : index.input_devices(0, input))
                if (to != portal) down[{portal, to}] += bytes(static_cast<int>(input));
        std::vector<double> of_value;
        for (std::size_t v = 0; v < flow.values().size(); ++v)
            of_value.push_back(bytes(static_cast<int>(v)));
        const StageLoads loads =
            GraphWays(flow, of_value).loads(stages, static_cast<int>(instance.cluster.portal));
        const auto device = [&](int stage) {
            return stage < 0 ? portal : plan.stages[static_cast<std::size_t>(stage)].device;
        };
        const auto added = [&](const std::vector<StageLoad>& of) {
            Bytes out;
            for (const StageLoad& load : of)
                if (device(load.from) != device(load.to))
                    out[{device(load.from), device(load.to)}] += load.bytes;
            return out;
        };
        ASSERT_EQ(added(loads.values), down) << i;
        ASSERT_EQ(added(loads.gradients), up) << i;
    }
}

// A graph whose layers stand in one row is what the chain is.
TEST(GraphCosts, OfAGraphThatIsAChainAreTheChains) {
    Rng rng(31);
    for (int i = 0; i < 300; ++i) {
        InstanceShape shape = wide();
        shape.media = i % 3 == 0;
        Instance instance = reference::random_instance(rng, shape);
        // Of a chain that does not say what is trained gradients go all the way.
        instance.profile.layers.front().parameter_bytes += 1;
        const CostModel chain = reference::model_of(instance);
        instance.profile = reference::as_graph(instance.profile);
        const CostModel graph = reference::model_of(instance);
        const std::vector<StageSpan> stages = reference::random_stages(rng, instance, 6);
        const int count = static_cast<int>(stages.size());
        const std::vector<int> counts = random_counts(rng, stages.size(), chain.micro_batches());
        InFlightChooser chooser(kOneFOneB, chain.micro_batches());
        const double step =
            simulate(chain.pipeline(stages, Placement::cyclic(count)), chooser.lists(counts))
                .step_ms;
        EXPECT_NEAR(
            simulate(graph.pipeline(stages, Placement::cyclic(count)), chooser.lists(counts))
                .step_ms,
            step, 1e-9 * step);
        EXPECT_NEAR(chooser.step_ms(graph.pipeline(stages, Placement::cyclic(count)), counts), step,
                    1e-9 * step);
        for (StageSpan span : stages) {
            for (const bool recompute : {false, true}) {
                span.recompute = recompute;
                EXPECT_EQ(graph.stage_memory(span).in_flight, chain.stage_memory(span).in_flight);
                EXPECT_EQ(graph.stage_memory(span).fixed, chain.stage_memory(span).fixed);
            }
        }
    }
}

// Whatever the graph, the cuts and the schedule: no bound above what is simulated, and the
// recurrence sees what the event simulator sees.
TEST(GraphBounds, NoStepOfARandomGraphIsBelow) {
    Rng rng(32);
    int compared = 0;
    double nearest = 0;
    for (int i = 0; i < 3000; ++i) {
        InstanceShape shape = wide();
        shape.media = i % 4 == 0;
        const Instance instance = random_graph(rng, shape);
        const CostModel model = reference::model_of(instance);
        const int M = model.micro_batches();
        const std::vector<StageSpan> stages = reference::random_stages(rng, instance, 6);
        const PipelineCosts costs =
            model.pipeline(stages, Placement::cyclic(static_cast<int>(stages.size())), false);
        const std::vector<int> counts = random_counts(rng, stages.size(), M);
        for (const Schedule* schedule : {&kGpipe, &kOneFOneB, &kZbH1}) {
            InFlightChooser chooser(*schedule, M);
            const std::vector<ActionList> lists = chooser.lists(counts);
            const double step = simulate(costs, lists).step_ms;
            const double bound = pipeline_bound(costs, backward_kind(lists)).ms;
            ASSERT_GE(step, bound * (1 - 1e-12)) << i << ' ' << schedule->name;
            ASSERT_GE(step, cluster_bound_ms(model, backward_kind(lists), schedule != &kZbH1) *
                                (1 - 1e-9))
                << i;
            if (schedule != &kZbH1) {
                ASSERT_GE(step, quick_bound_ms(costs) * (1 - 1e-12)) << i;
            }
            if (schedule == &kOneFOneB) {
                ASSERT_GE(step, in_flight_bound_ms(costs, counts) * (1 - 1e-12)) << i;
                nearest = std::max(nearest, bound / step);
            }
            if (!recurrence_applies(costs)) continue;
            ++compared;
            ASSERT_NEAR(chooser.step_ms(costs, counts), step, 1e-9 * step)
                << i << ' ' << schedule->name;
        }
    }
    EXPECT_GT(compared, 3000);
    EXPECT_GT(nearest, 0.99);
}

TEST(GraphBounds, HoldForInterleavedSlices) {
    Rng rng(33);
    for (int i = 0; i < 500; ++i) {
        InstanceShape shape = wide();
        shape.media = i % 4 == 0;
        const Instance instance = random_graph(rng, shape);
        const CostModel model = reference::model_of(instance);
        const int slices = 1 + static_cast<int>(rng.below(3));
        const std::vector<StageSpan> stages = reference::random_stages(rng, instance, 4, slices);
        const int devices = static_cast<int>(stages.size()) / slices;
        const PipelineCosts costs = model.pipeline(
            stages, Placement::cyclic(devices, static_cast<int>(stages.size()) / devices), false);
        std::vector<ActionList> lists;
        for (int d = 0; d < devices; ++d)
            lists.push_back(kInterleaved.actions({model.micro_batches(), d, devices, slices}));
        ASSERT_GE(simulate(costs, lists).step_ms,
                  pipeline_bound(costs, BackwardKind::kWhole).ms * (1 - 1e-12))
            << i;
    }
}

}  // namespace
}  // namespace ecopipe
