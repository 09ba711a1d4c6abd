#pragma once
// The learning rate of each step: a pure function of the step's number, so that a replay or a
// resumption takes the same.

#include <cstdint>
#include <string>

namespace ecopipe {

struct LearningRateSchedule {
    // constant; step: times `gamma` every `step_size` steps (torch's StepLR); cosine: down to 0
    // over the whole run (CosineAnnealingLR).
    std::string name = "constant";
    std::uint64_t warmup_steps = 0;  // rises linearly to `base` before; the rest counts from there
    std::uint64_t step_size = 0;
    double gamma = 0.1;

    // Of step `step` of 0..steps-1.
    [[nodiscard]] double at(double base, std::uint64_t step, std::uint64_t steps) const;
};

}  // namespace ecopipe
