#pragma once
// Clipping by the norm of the whole gradient, as torch.nn.utils.clip_grad_norm_ does.

#include <algorithm>
#include <cmath>
#include <vector>

namespace ecopipe {

// Of the whole gradient, from its layers' squared norms: summed in layer order, so that no cut
// changes a bit.
[[nodiscard]] inline double gradient_norm(const std::vector<double>& squared_norms) {
    double sum = 0;
    for (const double squared : squared_norms) sum += squared;
    return std::sqrt(sum);
}

// What a step's gradient is multiplied by so that its norm does not exceed `norm_max`; 1 when that
// is 0.
[[nodiscard]] inline double clip_scale(double norm, double norm_max) {
    constexpr double kEpsilon = 1e-6;
    return norm_max > 0 ? std::min(1.0, norm_max / (norm + kEpsilon)) : 1.0;
}

}  // namespace ecopipe
