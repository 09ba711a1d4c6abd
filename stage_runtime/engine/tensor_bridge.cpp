#include "stage_runtime/engine/tensor_bridge.h"

#include <array>
#include <utility>

#include "core/check.h"

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

at::Tensor to_torch(const HostTensor& tensor) {
    at::ScalarType type = at::kFloat;
    for (const auto& [ours, theirs] : kTypes)
        if (ours == tensor.dtype()) type = theirs;
    auto* data = const_cast<std::byte*>(tensor.data());
    return at::from_blob(
        data, tensor.shape(), [owner = tensor.owner()](void*) {}, at::TensorOptions(type));
}

HostTensor to_host(const at::Tensor& tensor) {
    auto owner = std::make_shared<at::Tensor>(tensor.detach().contiguous());
    for (const auto& [ours, theirs] : kTypes) {
        if (theirs != owner->scalar_type()) continue;
        auto* data = static_cast<std::byte*>(owner->data_ptr());
        Shape shape(owner->sizes().begin(), owner->sizes().end());
        return HostTensor::wrap(ours, std::move(shape), data, std::move(owner));
    }
    TORCH_CHECK(false, "a tensor of an element type that ecopipe does not know");
}

}  // namespace ecopipe
