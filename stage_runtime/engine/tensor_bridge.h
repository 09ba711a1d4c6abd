#pragma once
// Between torch's tensors and ours, without copying. Includes torch.

#include <ATen/ATen.h>

#include "core/host_tensor.h"

namespace ecopipe {

// Shares memory; the result keeps the buffer alive.
[[nodiscard]] at::Tensor to_torch(const HostTensor& tensor);
// Shares memory of a contiguous tensor, or of a contiguous copy of it.
[[nodiscard]] HostTensor to_host(const at::Tensor& tensor);

}  // namespace ecopipe
