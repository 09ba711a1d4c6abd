#include "tests/sim/sim_planner.h"

#include <algorithm>

#include "domain/plan_index.h"
#include "tests/sim/toy_model.h"
#include "tests/support/small_training.h"

namespace ecopipe::sim {
namespace {

constexpr std::uint64_t kSnapshotEvery = 3;
constexpr double kActionMs = 3;  // as long as a stage's takes on the average

double slowness_of(const Conditions& conditions, const std::string& device) {
    const auto found = conditions.slowness.find(device);
    return found == conditions.slowness.end() ? 1 : found->second;
}

}  // namespace

Result<Plan> SimPlanner::plan(const std::set<std::string>& devices, const Conditions& conditions) {
    if (devices.empty()) return fail(ExitCode::kUnreachable, "no device is there");
    std::vector<std::string> order(devices.begin(), devices.end());
    if (order.size() > static_cast<std::size_t>(kLayers)) order.resize(kLayers);
    const auto count = static_cast<int>(order.size());
    Plan plan;
    plan.model = "toy";
    plan.batch = 4;
    plan.micro_batches = test::SmallTraining::kMicroBatches;
    plan.schedule = "1f1b";
    plan.sum_blocks = sum_blocks_;
    if (sum_blocks_ > 1 && placing_ == Placing::kOneEach && count > 1) {
        plan = with_twins(order);
        Prediction predicted;
        predicted.bound_by = "the slowest stage";
        ECOPIPE_ASSIGN_OR_RETURN(predicted.step_ms, step_ms(plan, conditions));
        plan.predicted = predicted;
        return plan;
    }
    if (placing_ != Placing::kOneEach && 2 * count <= kLayers) {
        const bool folded = placing_ == Placing::kFolded && count > 1;
        plan.schedule = folded ? "v-half" : "interleaved";
        const Placement placement = folded ? Placement::folded(count) : Placement::cyclic(count, 2);
        for (int s = 0; s < placement.stages(); ++s) {
            StagePlan stage;
            stage.device = order[static_cast<std::size_t>(placement.device(s))];
            stage.first_layer = s * kLayers / (2 * count);
            stage.last_layer = (s + 1) * kLayers / (2 * count) - 1;
            plan.stages.push_back(stage);
        }
        return plan;
    }
    double speed = 0;
    for (const std::string& device : order) speed += 1 / slowness_of(conditions, device);
    double share = 0;
    for (int s = 0; s < count; ++s) {
        StagePlan stage;
        stage.device = order[static_cast<std::size_t>(s)];
        share += 1 / slowness_of(conditions, stage.device) / speed;
        stage.first_layer = s == 0 ? 0 : plan.stages.back().last_layer + 1;
        // At least a layer each.
        stage.last_layer = std::clamp(static_cast<int>(share * kLayers + 0.5) - 1,
                                      stage.first_layer, kLayers - count + s);
        if (s + 1 == count) stage.last_layer = kLayers - 1;
        stage.in_flight = std::min(plan.micro_batches, 2 * (count - s) - 1);
        plan.stages.push_back(stage);
    }
    Prediction predicted;
    predicted.bound_by = "the slowest stage";
    ECOPIPE_ASSIGN_OR_RETURN(predicted.step_ms, step_ms(plan, conditions));
    plan.predicted = predicted;
    return plan;
}

Plan SimPlanner::with_twins(const std::vector<std::string>& devices) const {
    Plan plan;
    plan.model = "toy";
    plan.batch = 4;
    plan.micro_batches = test::SmallTraining::kMicroBatches;
    plan.schedule = "1f1b";
    plan.sum_blocks = sum_blocks_;
    // One stage of two, or two of which the second has one or two.
    const std::size_t first = devices.size() == 2 || sum_blocks_ < 3 ? 2 : devices.size() - 1;
    std::vector<std::vector<std::string>> groups{
        {devices.begin(), devices.begin() + static_cast<std::ptrdiff_t>(first)}};
    if (devices.size() > first)
        groups.emplace_back(devices.begin() + static_cast<std::ptrdiff_t>(first), devices.end());
    for (std::size_t s = 0; s < groups.size(); ++s) {
        const auto& group = groups[s];
        std::vector<StageHolder> holders;
        for (const std::string& device : group) holders.push_back({device, {}, 1, {}, {}});
        for (int block = 0; block < sum_blocks_; ++block)
            holders[static_cast<std::size_t>(block) % group.size()].blocks.push_back(block);
        StagePlan stage;
        stage.device = group.front();
        stage.first_layer = s == 0 ? 0 : kLayers / 2;
        stage.last_layer = s + 1 == groups.size() ? kLayers - 1 : kLayers / 2 - 1;
        stage.in_flight = s + 1 < groups.size() ? plan.micro_batches : 1;
        for (StageHolder& holder : holders) holder.in_flight = stage.in_flight;
        if (holders.size() > 1) stage.blocks = holders.front().blocks;
        stage.twins = {holders.begin() + 1, holders.end()};
        plan.stages.push_back(std::move(stage));
    }
    return plan;
}

Result<double> SimPlanner::step_ms(const Plan& plan, const Conditions& conditions) {
    std::map<std::string, double> work;
    for (const StagePlan& stage : plan.stages)
        for (const StageHolder& holder : holders_of(stage, plan.sum_blocks))
            work[holder.device] += (stage.last_layer - stage.first_layer + 1) *
                                   slowness_of(conditions, holder.device) *
                                   static_cast<double>(holder.blocks.size()) / plan.sum_blocks;
    double slowest = 0;
    for (const auto& [device, layers] : work) slowest = std::max(slowest, layers);
    return 2 * plan.micro_batches * kActionMs * slowest;
}

ReplicaPlan SimPlanner::replicas(const Plan& plan, const std::set<std::string>&,
                                 const std::map<int, double>&) {
    ReplicaPlan out;
    const PlanIndex index(plan);
    const std::vector<std::string>& devices = index.devices();
    if (devices.size() < 2) return out;
    out.every = kSnapshotEvery;
    for (std::size_t d = 0; d < devices.size(); ++d)
        if (index.devices_of(index.stages_of(devices[d]).front()).size() == 1)
            out.buddies[devices[d]] = devices[(d + 1) % devices.size()];
    return out;
}

}  // namespace ecopipe::sim
