// The search over models that are graphs: the plan is what trying everything finds.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <tuple>

#include "planner/report/plan_report.h"
#include "planner/schedule/registry.h"
#include "planner/search/in_flight.h"
#include "planner/search/partition.h"
#include "planner/search/partition_exhaustive.h"
#include "planner/simulate/plan_timeline.h"
#include "planner/simulate/simulator.h"
#include "tests/planner/graphs.h"

namespace ecopipe {
namespace {

using reference::Instance;
using reference::InstanceShape;

Instance searched_graph(Rng& rng, const InstanceShape& shape) {
    Instance instance = reference::random_instance(rng, shape);
    reference::make_graph(rng, instance.profile);
    return instance;
}

// Hardly more memory than the values that a layer takes, of devices with little of it: what waits
// decides which counts fit.
void make_values_heavy(Rng& rng, Instance& instance) {
    double bytes = 0;
    for (LayerProfile& layer : instance.profile.layers) {
        layer.parameter_bytes = rng.below(2) * 1000;
        layer.workspace_bytes_per_sample = 0;
        layer.stash_bytes_per_sample = rng.below(5000);
    }
    for (const ValueProfile& value : instance.profile.values)
        for (const int consumer : value.consumers) {
            if (consumer == static_cast<int>(instance.profile.layers.size())) continue;
            instance.profile.layers[static_cast<std::size_t>(consumer)].stash_bytes_per_sample +=
                value.bytes_per_sample;
            bytes += static_cast<double>(value.bytes_per_sample) * instance.batch /
                     instance.micro_batches;
        }
    for (Device& device : instance.cluster.devices)
        device.memory_mib =
            instance.profile.process_mib + (20000 + bytes * rng.uniform(0.5, 3)) / 1048576;
}

void every_arrangement(const CostModel& model, std::vector<StageSpan>& stages,
                       const std::function<void()>& visit) {
    const int first = stages.empty() ? 0 : stages.back().last + 1;
    if (first == model.layers()) return visit();
    for (int d = 0; d < model.devices(); ++d) {
        if (std::any_of(stages.begin(), stages.end(),
                        [&](const StageSpan& s) { return s.device == d; }))
            continue;
        for (int last = first; last < model.layers(); ++last) {
            stages.push_back({d, first, last, false});
            every_arrangement(model, stages, visit);
            stages.pop_back();
        }
    }
}

void every_count(int stages, int most, std::vector<int>& counts,
                 const std::function<void()>& visit) {
    if (static_cast<int>(counts.size()) == stages) return visit();
    for (int k = 1; k <= (counts.empty() ? most : counts.back()); ++k) {
        counts.push_back(k);
        every_count(stages, most, counts, visit);
        counts.pop_back();
    }
}

// What a stage recomputes, of all that it may, so that it fits beside what waits there.
class Recomputing {
  public:
    explicit Recomputing(const CostModel& model) : model_(model) {}
    // A micro-batch; nothing where nothing fits.
    std::optional<double> least_ms(const StageSpan& stage, int in_flight, double waiting) {
        const auto [at, added] =
            known_.try_emplace({stage.device, stage.first, stage.last, in_flight, waiting});
        if (!added) return at->second;
        const double room = model_.budget_bytes(stage.device) - waiting;
        const auto segments = model_.segments_for(stage, in_flight, room);
        if (!segments) return std::nullopt;
        at->second = 0;
        for (const LayerRange& segment : *segments)
            *at->second +=
                model_.stage_cost({stage.device, segment.first, segment.last, false}).forward_ms;
        return at->second;
    }

  private:
    const CostModel& model_;
    std::map<std::tuple<int, int, int, int, double>, std::optional<double>> known_;
};

// The shortest simulated step over all cuts, device orders, segments and counts that fit.
// `waits`: without what waits there would be a shorter one.
double least_step_ms(const CostModel& model, const Schedule& schedule, bool& waits) {
    const int M = model.micro_batches();
    InFlightChooser chooser(schedule, M);
    Recomputing recomputing(model);
    double least = std::numeric_limits<double>::infinity();
    double unheld = least;
    std::vector<StageSpan> stages;
    every_arrangement(model, stages, [&] {
        const int count = static_cast<int>(stages.size());
        const PipelineCosts costs = model.pipeline(stages, Placement::cyclic(count), false);
        const std::vector<StageLoad> skips = model.skips(stages);
        std::vector<int> counts;
        const auto step_ms = [&](bool waits_too) {
            PipelineCosts priced = costs;
            for (std::size_t s = 0; s < stages.size(); ++s) {
                const double waiting = waits_too ? waiting_bytes(skips, s, counts) : 0;
                const auto again = recomputing.least_ms(stages[s], counts[s], waiting);
                if (!again) return std::numeric_limits<double>::infinity();
                recompute_for(*again, priced.stages[s]);
            }
            return simulate(priced, chooser.lists(counts)).step_ms;
        };
        every_count(count, M, counts, [&] {
            if (schedule.holds_all() && counts.back() < M) return;
            unheld = std::min(unheld, step_ms(false));
            least = std::min(least, step_ms(true));
        });
    });
    waits = step_less(unheld, least);
    return least;
}

// 200 graphs of up to eight layers on up to three devices, half of them short of memory. Branch and
// bound by itself finds it too: no bound of its takes away what is best.
TEST(GraphSearch, FindsWhatTryingEverythingFinds) {
    Rng rng(40);
    int unfit = 0;
    int branched = 0;
    int waiting = 0;
    for (int i = 0; i < 200; ++i) {
        InstanceShape shape;
        const bool tight = i % 4 < 2;
        shape.layers_max = tight ? 6 : 8;
        shape.micro_batches_max = tight ? 5 : 3;
        shape.media = i % 5 == 0;
        Instance instance = searched_graph(rng, shape);
        if (tight) make_values_heavy(rng, instance);
        const Schedule& schedule = i % 3 == 0 ? kGpipe : kOneFOneB;
        const auto may = i % 2 == 0 ? Recomputation::kStages : Recomputation::kSegments;
        const CostModel model = reference::model_of(instance, may);
        bool waits = false;
        const double least = least_step_ms(model, schedule, waits);
        Appraiser alone(model, schedule);
        EXPECT_TRUE(search_exhaustively(alone, 256, std::uint64_t{1} << 40)) << i;
        if (std::isfinite(least)) {
            ASSERT_NEAR(alone.best().step_ms, least, 1e-9 * least) << i;
        }
        PlanRequest request;
        request.batch = instance.batch;
        request.micro_batches = instance.micro_batches;
        request.schedule = schedule.name;
        request.recomputation = may;
        const auto plan = search_plan(instance.cluster, {instance.profile}, request);
        ASSERT_EQ(plan.has_value(), std::isfinite(least))
            << i << ' ' << (plan ? "found one" : plan.error().message);
        if (!plan) {
            ++unfit;
            continue;
        }
        ASSERT_NEAR(plan->predicted->step_ms, least, 1e-9 * least) << i;
        EXPECT_GE(least, plan->predicted->lower_bound_ms * (1 - 1e-12)) << i;
        EXPECT_GE(least, plan->predicted->cluster_bound_ms * (1 - 1e-9)) << i;
        const auto spans = model.spans(*plan, "plan");
        const std::vector<double> peaks = model.peak_bytes(*plan, *spans);
        for (std::size_t s = 0; s < peaks.size(); ++s) {
            ASSERT_LE(peaks[s], model.budget_bytes((*spans)[s].device)) << i;
            EXPECT_NEAR(static_cast<double>(*plan->stages[s].peak_bytes), peaks[s], 1.0);
        }
        branched += plan->stages.size() == 3 ? 1 : 0;
        waiting += waits ? 1 : 0;
    }
    EXPECT_GT(unfit, 0);
    EXPECT_GT(branched, 20);
    EXPECT_GT(waiting, 3);  // what waits decided
    fmt::print("{} do not fit, {} of three stages, in {} what waits decides\n", unfit, branched,
               waiting);
}

// More layers and devices than can be tried: no worse than the plan of one who takes the graph for
// a chain, and on the whole better.
TEST(GraphSearch, IsNoWorseThanTheChainsPlan) {
    Rng rng(41);
    double as_graph = 0;
    double as_chain = 0;
    for (int i = 0; i < 5; ++i) {
        InstanceShape shape;
        shape.layers_min = 14;
        shape.layers_max = 24;
        shape.devices_min = shape.devices_max = 5;
        shape.micro_batches_min = shape.micro_batches_max = 8;
        const Instance instance = searched_graph(rng, shape);
        PlanRequest request;
        request.batch = instance.batch;
        request.micro_batches = instance.micro_batches;
        request.schedule = "1f1b";
        request.effort = 0.1;
        const auto plan = search_plan(instance.cluster, {instance.profile}, request);
        ASSERT_TRUE(plan) << plan.error().message;
        ModelProfile chain = instance.profile;
        chain.values.clear();
        auto other = search_plan(instance.cluster, {chain}, request);
        ASSERT_TRUE(other) << other.error().message;
        ASSERT_TRUE(predict_plan(instance.cluster, {instance.profile}, *other));
        EXPECT_LE(plan->predicted->step_ms, other->predicted->step_ms * (1 + 1e-9)) << i;
        as_graph += plan->predicted->step_ms;
        as_chain += other->predicted->step_ms;
    }
    fmt::print("steps of graphs' plans: {:.4f} of those of the chains' plans\n",
               as_graph / as_chain);
    EXPECT_LT(as_graph, as_chain);
}

// The report of a graph names where most crosses; that of a chain has no such line.
TEST(GraphSearch, TheReportNamesTheWidestCut) {
    Rng rng(44);
    InstanceShape shape;
    shape.layers_min = shape.layers_max = 6;
    shape.devices_min = shape.devices_max = 3;
    Instance instance = searched_graph(rng, shape);
    Plan plan;
    plan.model = "random";
    plan.batch = instance.batch;
    plan.micro_batches = instance.micro_batches;
    plan.schedule = "1f1b";
    for (int s = 0; s < 3; ++s) {
        StagePlan stage;
        stage.device = fmt::format("d{}", s);
        stage.first_layer = 2 * s;
        stage.last_layer = 2 * s + 1;
        stage.in_flight = 1;
        plan.stages.push_back(stage);
    }
    for (LayerProfile& layer : instance.profile.layers) layer.output_bytes_per_sample = 10;
    instance.profile.layers[3].output_bytes_per_sample = 1 << 20;
    const auto report = [&] {
        EXPECT_TRUE(predict_plan(instance.cluster, {instance.profile}, plan));
        const auto played = play_plan(instance.cluster, {instance.profile}, plan, "plan");
        EXPECT_TRUE(played);
        return plan_report(plan, *played, {});
    };
    const std::string line = "the widest cut, behind layer 3, has ";
    EXPECT_NE(report().find(line), std::string::npos) << report();
    instance.profile.values.clear();
    EXPECT_EQ(report().find("widest cut"), std::string::npos);
}

}  // namespace
}  // namespace ecopipe
