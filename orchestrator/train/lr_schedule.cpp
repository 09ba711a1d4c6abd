#include "orchestrator/train/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace ecopipe {

double LearningRateSchedule::at(double base, std::uint64_t step, std::uint64_t steps) const {
    if (step < warmup_steps)
        return base * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
    const std::uint64_t past = step - warmup_steps;
    if (name == "step") {
        const std::uint64_t factors = past / step_size;
        return base * std::pow(gamma, static_cast<double>(factors));
    }
    if (name == "cosine") {
        const std::uint64_t whole = steps > warmup_steps ? steps - warmup_steps : 1;
        const double share = static_cast<double>(past) / static_cast<double>(whole);
        return base * 0.5 * (1 + std::cos(std::numbers::pi * share));
    }
    return base;
}

}  // namespace ecopipe
