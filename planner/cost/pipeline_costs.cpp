#include "planner/cost/pipeline_costs.h"

#include <fmt/format.h>

#include "core/check.h"

namespace ecopipe {

StageCost at_count(StageCost stage, int in_flight) {
    if (stage.recompute_at == nullptr) return stage;
    recompute_for(stage.recompute_at[in_flight - 1], stage);
    return stage;
}

void recompute_for(double ms, StageCost& stage) {
    stage.backward_ms += ms - stage.recompute_ms;
    stage.recompute_ms = ms;
}

double action_ms(const StageCost& stage, ActionKind kind) {
    switch (kind) {
        case ActionKind::kForward:
            return stage.forward_ms;
        case ActionKind::kBackward:
            return stage.backward_ms;
        case ActionKind::kInputGradient:
            return stage.input_gradient_ms;
        default:
            return stage.weight_gradient_ms;
    }
}

PipelineCosts plain_costs(int micro_batches, std::vector<StageCost> stages,
                          const std::vector<double>& forward_link_ms,
                          const std::vector<double>& backward_link_ms) {
    ECOPIPE_CHECK(!stages.empty() && forward_link_ms.size() + 1 == stages.size() &&
                  backward_link_ms.size() + 1 == stages.size());
    PipelineCosts costs;
    costs.micro_batches = micro_batches;
    costs.place = Placement::cyclic(static_cast<int>(stages.size()));
    costs.stages = std::move(stages);
    const auto link = [&](double occupy_ms, std::size_t from, std::size_t to) {
        costs.resources.push_back({fmt::format("link {}-{}", from, to), 1, from, to, ""});
        return Transfer{occupy_ms, 0, static_cast<int>(costs.resources.size()) - 1};
    };
    for (std::size_t k = 0; k + 1 < costs.stages.size(); ++k) {
        costs.forward.push_back(link(forward_link_ms[k], k, k + 1));
        costs.backward.push_back(link(backward_link_ms[k], k + 1, k));
    }
    costs.device_names.resize(costs.stages.size());
    return costs;
}

}  // namespace ecopipe
