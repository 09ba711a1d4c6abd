#include "stage_runtime/engine/model/tensor_bridge.h"

#include <array>
#include <utility>

#include "core/check.h"
#include "core/tensor_memory.h"

namespace ecopipe {
namespace {

constexpr std::array<std::pair<DType, at::ScalarType>, 10> kTypes{{{DType::kF32, at::kFloat},
                                                                   {DType::kF64, at::kDouble},
                                                                   {DType::kF16, at::kHalf},
                                                                   {DType::kBF16, at::kBFloat16},
                                                                   {DType::kI64, at::kLong},
                                                                   {DType::kI32, at::kInt},
                                                                   {DType::kI16, at::kShort},
                                                                   {DType::kI8, at::kChar},
                                                                   {DType::kU8, at::kByte},
                                                                   {DType::kBool, at::kBool}}};

}  // namespace

at::ScalarType scalar_type_of(DType dtype) {
    for (const auto& [ours, theirs] : kTypes)
        if (ours == dtype) return theirs;
    return at::kFloat;
}

at::Tensor to_torch(const HostTensor& tensor) {
    auto* data = const_cast<std::byte*>(tensor.data());
    return at::from_blob(
        data, tensor.shape(), [owner = tensor.owner()](void*) {},
        at::TensorOptions(scalar_type_of(tensor.dtype())));
}

std::optional<DType> dtype_of(const at::Tensor& tensor) {
    for (const auto& [ours, theirs] : kTypes)
        if (theirs == tensor.scalar_type()) return ours;
    return std::nullopt;
}

void name_memory(const at::Tensor& tensor, MemoryUse use) {
    const at::DataPtr& block = tensor.storage().data_ptr();
    if (block.get_deleter() == &free_tensor_memory && block.get() != nullptr)
        rename_tensor_memory(block.get_context(), use);
}

HostTensor to_host(const at::Tensor& tensor) {
    const auto dtype = dtype_of(tensor);
    TORCH_CHECK(dtype, "a tensor of the element type ", tensor.scalar_type(),
                ", which ecopipe does not know");
    auto owner = std::make_shared<at::Tensor>(tensor.detach().contiguous());
    auto* data = static_cast<std::byte*>(owner->data_ptr());
    Shape shape(owner->sizes().begin(), owner->sizes().end());
    return HostTensor::wrap(*dtype, std::move(shape), data, std::move(owner));
}

}  // namespace ecopipe
