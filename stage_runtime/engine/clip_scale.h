#pragma once
// Clipping by the norm of the whole gradient, as torch.nn.utils.clip_grad_norm_ does.

#include <algorithm>
#include <cmath>
#include <vector>

namespace ecopipe {

// What a step's gradient is multiplied by, from the squared norms of its layers, summed in layer
// order so that no cut changes a bit. 1 when `clip_norm` is 0 or not exceeded.
[[nodiscard]] inline double clip_scale(const std::vector<double>& squared_norms, double clip_norm) {
    if (clip_norm == 0) return 1.0;
    double sum = 0;
    for (const double squared : squared_norms) sum += squared;
    return std::min(1.0, clip_norm / (std::sqrt(sum) + 1e-6));
}

}  // namespace ecopipe
