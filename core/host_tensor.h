#pragma once
// A tensor in host memory, contiguous and row-major: what data readers, files, the wire and the
// engine exchange. It knows nothing of torch; the engine wraps its tensors without copying them.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ecopipe {

// Values are part of the wire and of files: never renumber.
enum class DType : std::uint8_t {
    kF32 = 1,
    kF64 = 2,
    kF16 = 3,
    kBF16 = 4,
    kI64 = 5,
    kI32 = 6,
    kI16 = 7,
    kI8 = 8,
    kU8 = 9,
    kBool = 10,
};

inline constexpr int kTensorRankMax = 8;

[[nodiscard]] std::size_t dtype_bytes(DType dtype);
[[nodiscard]] bool is_floating(DType dtype);
[[nodiscard]] std::optional<DType> dtype_from(std::uint8_t value);
// The names of the safetensors format: F32, F64, F16, BF16, I64, I32, I16, I8, U8, BOOL.
[[nodiscard]] std::string_view dtype_name(DType dtype);
[[nodiscard]] std::optional<DType> dtype_named(std::string_view name);

using Shape = std::vector<std::int64_t>;

// Product of the dimensions times the element size; nothing if a dimension is negative, the rank
// exceeds kTensorRankMax or the product overflows.
[[nodiscard]] std::optional<std::size_t> checked_bytes(DType dtype,
                                                       std::span<const std::int64_t> shape);
[[nodiscard]] std::string shape_text(std::span<const std::int64_t> shape);  // "[64, 3, 16, 16]"

class HostTensor {
  public:
    HostTensor() = default;
    // Uninitialised memory of our own. Dimensions must pass checked_bytes.
    [[nodiscard]] static HostTensor allocate(DType dtype, Shape shape);
    // Memory that `owner` keeps alive.
    [[nodiscard]] static HostTensor wrap(DType dtype, Shape shape, std::byte* data,
                                         std::shared_ptr<void> owner);

    [[nodiscard]] DType dtype() const { return dtype_; }
    [[nodiscard]] const Shape& shape() const { return shape_; }
    [[nodiscard]] std::int64_t elements() const;
    [[nodiscard]] std::size_t bytes() const;
    [[nodiscard]] bool defined() const { return owner_ != nullptr; }
    [[nodiscard]] std::byte* data() { return data_; }
    [[nodiscard]] const std::byte* data() const { return data_; }
    template <class T>
    [[nodiscard]] std::span<T> as() {
        return {reinterpret_cast<T*>(data_), bytes() / sizeof(T)};
    }
    template <class T>
    [[nodiscard]] std::span<const T> as() const {
        return {reinterpret_cast<const T*>(data_), bytes() / sizeof(T)};
    }
    // Keeps the memory alive: a send in flight and the engine may hold one buffer at a time.
    [[nodiscard]] const std::shared_ptr<void>& owner() const { return owner_; }
    [[nodiscard]] HostTensor clone() const;

  private:
    DType dtype_ = DType::kF32;
    Shape shape_;
    std::byte* data_ = nullptr;
    std::shared_ptr<void> owner_;
};

// A tensor with the name it has in files: the model's state-dict name.
struct NamedTensor {
    std::string name;
    HostTensor tensor;
};
using TensorMap = std::vector<NamedTensor>;  // in the model's order

}  // namespace ecopipe
