#pragma once
// Plans by hand.

#include <string>
#include <tuple>
#include <vector>

#include "domain/plan.h"

namespace ecopipe {

// A stage of each device, first and last layer.
inline Plan plan_of(const std::vector<std::tuple<std::string, int, int>>& stages) {
    Plan plan;
    for (const auto& [device, first, last] : stages) {
        StagePlan stage;
        stage.device = device;
        stage.first_layer = first;
        stage.last_layer = last;
        plan.stages.push_back(stage);
    }
    return plan;
}

}  // namespace ecopipe
