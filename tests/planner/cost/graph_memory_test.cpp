// What a stage of a graph's pipeline holds: the values that come past others wait at it.

#include <gtest/gtest.h>

#include <map>

#include "planner/schedule/registry.h"
#include "planner/search/in_flight.h"
#include "planner/simulate/simulator.h"
#include "tests/planner/graphs.h"

namespace ecopipe {
namespace {

using reference::Instance;
using reference::InstanceShape;

// What the values that come past others take while they wait is within what is said of it: played
// through, at every instant.
TEST(GraphMemory, HoldsWhatWaitsForTheStagesBetween) {
    Rng rng(42);
    int waited = 0;
    for (int i = 0; i < 400; ++i) {
        InstanceShape shape;
        shape.layers_min = 3;
        shape.layers_max = 10;
        shape.devices_min = 3;
        shape.devices_max = 5;
        shape.micro_batches_max = 9;
        Instance instance = reference::random_instance(rng, shape);
        reference::make_graph(rng, instance.profile);
        // Gradients come back for all, so that every maker waits for its users.
        for (ValueProfile& value : instance.profile.values) value.gradient = true;
        for (LayerProfile& layer : instance.profile.layers) layer.parameter_bytes = 1;
        const CostModel model = reference::model_of(instance);
        const std::vector<StageSpan> stages = reference::random_stages(rng, instance, 5);
        const int count = static_cast<int>(stages.size());
        std::vector<int> counts;
        for (int above = model.micro_batches(); static_cast<int>(counts.size()) < count;)
            counts.push_back(
                above = 1 + static_cast<int>(rng.below(static_cast<std::uint64_t>(above))));
        const Timeline played =
            simulate(model.pipeline(stages, Placement::cyclic(count)),
                     InFlightChooser(kOneFOneB, model.micro_batches()).lists(counts));
        for (const StageLoad& skip : model.skips(stages)) {
            // +1 when one has arrived, -1 when its forward begins; +-1 of the stage's own.
            std::multimap<double, std::pair<int, int>> changes;
            for (const TransferSpan& span : played.transfers)
                if (span.from_stage == skip.from && span.to_stage == skip.to && span.resource >= 0)
                    changes.emplace(span.arrival_ms, std::pair(1, 0));
            for (const ActionSpan& span : played.actions) {
                if (span.stage != skip.to) continue;
                if (span.action.kind == ActionKind::kForward)
                    changes.emplace(span.start_ms, std::pair(-1, 1));
                if (span.action.kind == ActionKind::kBackward)
                    changes.emplace(span.end_ms, std::pair(0, -1));
            }
            const int most = std::max(counts[static_cast<std::size_t>(skip.from)],
                                      counts[static_cast<std::size_t>(skip.to)]);
            int waiting = 0;
            int own = 0;
            for (auto change = changes.begin(); change != changes.end();) {
                const double at = change->first;
                for (; change != changes.end() && change->first == at; ++change) {
                    waiting += change->second.first;
                    own += change->second.second;
                }
                ASSERT_LE(waiting + own, most) << i;
                waited += waiting > 1 ? 1 : 0;
            }
        }
    }
    EXPECT_GT(waited, 100);
}

// Stage 2 has one micro-batch in flight while two more of stage 0's values wait there.
TEST(GraphMemory, OfASkipIsBytesTimesWhatWaits) {
    Instance instance;
    Rng rng(43);
    InstanceShape shape;
    shape.layers_min = shape.layers_max = shape.devices_min = shape.devices_max = 3;
    shape.micro_batches_min = shape.micro_batches_max = 4;
    instance = reference::random_instance(rng, shape);
    const CostModel plain = reference::model_of(
        {instance.cluster, reference::as_graph(instance.profile), instance.batch, 4});
    instance.profile = reference::as_graph(instance.profile);
    instance.profile.values.insert(instance.profile.values.begin() + 2, {0, {2}, 3000, true});
    const CostModel model = reference::model_of(instance);
    const std::vector<StageSpan> stages{{0, 0, 0, false}, {1, 1, 1, false}, {2, 2, 2, false}};
    const std::vector<int> counts{3, 2, 1};
    const std::vector<double> without = plain.peak_bytes(stages, counts);
    const std::vector<double> with = model.peak_bytes(stages, counts);
    EXPECT_EQ(with[0], without[0]);
    EXPECT_EQ(with[1], without[1]);
    EXPECT_EQ(with[2], without[2] + 2.0 * 3000 * model.micro_batch());
    // Recomputed, it keeps the skip of each of its own too.
    const std::vector<StageSpan> again{stages[0], stages[1], {2, 2, 2, true}};
    EXPECT_EQ(model.peak_bytes(again, counts)[2],
              plain.peak_bytes(again, counts)[2] + 3.0 * 3000 * model.micro_batch());
}

}  // namespace
}  // namespace ecopipe
