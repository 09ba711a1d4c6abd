#include "planner/search/suffix_beam.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "planner/schedule/registry.h"
#include "planner/search/in_flight.h"
#include "planner/simulate/simulator.h"
#include "tests/planner/graphs.h"
#include "tests/planner/reference.h"

namespace ecopipe {
namespace {

// Every layer once and in order, no device twice, within memory, and the step that it says.
void expect_sound(const CostModel& model, const SuffixBeam::Completion& completion) {
    int next = 0;
    std::set<int> devices;
    for (std::size_t s = 0; s < completion.stages.size(); ++s) {
        const StageSpan& stage = completion.stages[s];
        EXPECT_EQ(stage.first, next);
        next = stage.last + 1;
        EXPECT_TRUE(devices.insert(stage.device).second);
        EXPECT_LE(completion.in_flight[s], model.in_flight_cap(stage));
        EXPECT_TRUE(s == 0 || completion.in_flight[s] <= completion.in_flight[s - 1]);
    }
    EXPECT_EQ(next, model.layers());
    PipelineCosts costs = model.pipeline(
        completion.stages, Placement::cyclic(static_cast<int>(completion.stages.size())));
    for (std::size_t s = 0; s < costs.stages.size(); ++s) {
        costs.stages[s] = model.stage_cost(completion.stages[s], completion.in_flight[s]);
        costs.stages[s].update_ms = 0;
    }
    // The beam knows nothing of inputs that share a direction with gradients.
    for (const Resource& resource : costs.resources)
        if (resource.uses > 1) return;
    const InFlightChooser chooser(kOneFOneB, model.micro_batches());
    const double step_ms = simulate(costs, chooser.lists(completion.in_flight)).step_ms;
    EXPECT_NEAR(completion.step_ms, step_ms, 1e-9 * step_ms);
}

TEST(SuffixBeam, BuildsSoundPipelinesTheBestFirst) {
    Rng rng(31);
    std::size_t built = 0;
    for (int i = 0; i < 60; ++i) {
        reference::InstanceShape shape;
        shape.layers_min = shape.layers_max = 12;
        shape.devices_min = shape.devices_max = 5;
        shape.micro_batches_max = 12;
        const reference::Instance instance = reference::random_instance(rng, shape);
        const CostModel model = reference::model_of(
            instance, i % 2 == 0 ? Recomputation::kStages : Recomputation::kSegments);
        SuffixBeam beam(model);
        for (const double spread_ms : {10.0, 30.0, 100.0}) {
            const auto completions = beam.build(spread_ms, 1e9, 20, 5);
            EXPECT_LE(completions.size(), 5U);
            for (const auto& completion : completions) expect_sound(model, completion);
            EXPECT_TRUE(
                std::is_sorted(completions.begin(), completions.end(),
                               [](const auto& a, const auto& b) { return a.step_ms < b.step_ms; }));
            built += completions.size();
        }
    }
    EXPECT_GT(built, 200U);
}

TEST(SuffixBeam, DropsWhatPromisesNoStepBelowTheLimit) {
    Rng rng(32);
    const CostModel model = reference::model_of(reference::random_instance(rng, {}));
    EXPECT_TRUE(SuffixBeam(model).build(100, 1e-3, 20, 5).empty());
}

}  // namespace
}  // namespace ecopipe
