#pragma once
// Between torch's tensors and ours, without copying. Includes torch.

#include <ATen/ATen.h>

#include <optional>

#include "core/host_tensor.h"
#include "core/memory_use.h"

namespace ecopipe {

// Shares memory; the result keeps the buffer alive.
[[nodiscard]] at::Tensor to_torch(const HostTensor& tensor);
[[nodiscard]] at::ScalarType scalar_type_of(DType dtype);
// Nothing for an element type that only torch knows, such as complex numbers.
[[nodiscard]] std::optional<DType> dtype_of(const at::Tensor& tensor);
// The tensor's block counts as this from now on, if it is one that torch was given by allocator.h.
void name_memory(const at::Tensor& tensor, MemoryUse use);
// Shares memory of a contiguous tensor, or of a contiguous copy of it.
[[nodiscard]] HostTensor to_host(const at::Tensor& tensor);

}  // namespace ecopipe
