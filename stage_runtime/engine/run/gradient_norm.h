#pragma once
// The squared norm of a gradient, with the same bits everywhere. Includes torch.

#include <ATen/ATen.h>

namespace ecopipe {

// Sum of squares in double over eight lanes: one order of additions on every machine; not finite
// when any element is not.
[[nodiscard]] double squared_norm(const at::Tensor& tensor);

}  // namespace ecopipe
