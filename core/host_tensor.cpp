#include "core/host_tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cstring>
#include <new>

#include "core/check.h"
#include "core/tensor_memory.h"

namespace ecopipe {
namespace {

struct DTypeInfo {
    DType dtype;
    std::size_t bytes;
    bool floating;
    std::string_view name;
};
constexpr std::array<DTypeInfo, 10> kDTypes{{{DType::kF32, 4, true, "F32"},
                                             {DType::kF64, 8, true, "F64"},
                                             {DType::kF16, 2, true, "F16"},
                                             {DType::kBF16, 2, true, "BF16"},
                                             {DType::kI64, 8, false, "I64"},
                                             {DType::kI32, 4, false, "I32"},
                                             {DType::kI16, 2, false, "I16"},
                                             {DType::kI8, 1, false, "I8"},
                                             {DType::kU8, 1, false, "U8"},
                                             {DType::kBool, 1, false, "BOOL"}}};

const DTypeInfo& info(DType dtype) {
    const auto index = static_cast<std::size_t>(dtype) - 1;
    ECOPIPE_CHECK(index < kDTypes.size());
    return kDTypes[index];
}

}  // namespace

std::size_t dtype_bytes(DType dtype) { return info(dtype).bytes; }
bool is_floating(DType dtype) { return info(dtype).floating; }
std::string_view dtype_name(DType dtype) { return info(dtype).name; }

std::optional<DType> dtype_from(std::uint8_t value) {
    if (value < 1 || value > kDTypes.size()) return std::nullopt;
    return static_cast<DType>(value);
}

std::optional<DType> dtype_named(std::string_view name) {
    for (const auto& entry : kDTypes)
        if (entry.name == name) return entry.dtype;
    return std::nullopt;
}

std::optional<std::size_t> checked_bytes(DType dtype, std::span<const std::int64_t> shape) {
    if (shape.size() > static_cast<std::size_t>(kTensorRankMax)) return std::nullopt;
    std::size_t total = dtype_bytes(dtype);
    bool empty = false;
    for (const std::int64_t dimension : shape) {
        if (dimension < 0) return std::nullopt;
        if (dimension == 0) {
            empty = true;
            continue;
        }
        if (__builtin_mul_overflow(total, static_cast<std::size_t>(dimension), &total))
            return std::nullopt;
        if (total > static_cast<std::size_t>(INT64_MAX)) return std::nullopt;
    }
    return empty ? 0 : total;
}

std::string shape_text(std::span<const std::int64_t> shape) {
    return fmt::format("[{}]", fmt::join(shape, ", "));
}

HostTensor HostTensor::allocate(DType dtype, Shape shape) {
    const auto bytes = checked_bytes(dtype, shape);
    ECOPIPE_CHECK(bytes.has_value());
    auto* memory = static_cast<std::byte*>(allocate_tensor_memory(*bytes));
    if (memory == nullptr) throw std::bad_alloc();
    std::shared_ptr<void> owner(memory, &free_tensor_memory);
    return wrap(dtype, std::move(shape), memory, std::move(owner));
}

HostTensor HostTensor::wrap(DType dtype, Shape shape, std::byte* data,
                            std::shared_ptr<void> owner) {
    HostTensor tensor;
    tensor.dtype_ = dtype;
    tensor.shape_ = std::move(shape);
    tensor.data_ = data;
    tensor.owner_ = std::move(owner);
    return tensor;
}

std::int64_t HostTensor::elements() const {
    return static_cast<std::int64_t>(bytes() / dtype_bytes(dtype_));
}

std::size_t HostTensor::bytes() const {
    if (!defined()) return 0;
    const auto bytes = checked_bytes(dtype_, shape_);
    ECOPIPE_CHECK(bytes.has_value());
    return *bytes;
}

HostTensor HostTensor::clone() const {
    HostTensor copy = allocate(dtype_, shape_);
    std::memcpy(copy.data(), data_, bytes());
    return copy;
}

}  // namespace ecopipe
