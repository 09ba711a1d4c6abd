#pragma once
// What a batch's summed loss is divided by. Torch-free: the portal says it before a stage computes.

#include "core/host_tensor.h"
#include "domain/loss.h"

namespace ecopipe {

// How many targets count, or the sum of their classes' weights: PyTorch's weighted mean.
[[nodiscard]] double target_weight(const LossSpec& loss, const HostTensor& targets);
// What to divide by: 1 where no target counts, so that such a batch has loss and gradients 0.
[[nodiscard]] inline double loss_divisor(double weight) { return weight > 0 ? weight : 1; }

}  // namespace ecopipe
