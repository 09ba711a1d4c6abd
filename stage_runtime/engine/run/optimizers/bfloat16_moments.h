#pragma once
// Numbers kept in bfloat16, whose upper half a float32 shares, and rounded by chance. Includes
// torch.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <bit>
#include <cstdint>

#include "core/random.h"

namespace ecopipe {

// Bits for each element of one tensor at one update: they depend on nothing else, so that where a
// layer runs changes nothing.
class RoundingBits {
  public:
    explicit RoundingBits(std::int64_t step)
        : key_(static_cast<std::uint32_t>(keyed_seed(0, {static_cast<std::uint64_t>(step)}) >>
                                          32)) {}

    // Two draws of 16 bits. (Wellons, "Prospecting for Hash Functions", 2018: lowbias32.)
    [[nodiscard]] std::uint32_t operator()(std::int64_t element) const {
        std::uint32_t bits = static_cast<std::uint32_t>(element) * 0x9e3779b1U + key_;
        bits = (bits ^ (bits >> 16)) * 0x7feb352dU;
        bits = (bits ^ (bits >> 15)) * 0x846ca68bU;
        return bits ^ (bits >> 16);
    }

  private:
    std::uint32_t key_;
};

[[nodiscard]] inline float widened(std::uint16_t kept) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(kept) << 16);
}

// Up with the probability of the part that is cut off; `draw` is of 16 bits. Infinities stay, and
// what is no number stays none.
[[nodiscard]] inline std::uint16_t rounded_by_chance(float value, std::uint32_t draw) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const bool finite = (bits & 0x7f800000U) != 0x7f800000U;
    const std::uint32_t none = (bits & 0x007fffffU) != 0 ? 0x00400000U : 0;
    return static_cast<std::uint16_t>((finite ? bits + draw : bits | none) >> 16);
}

[[nodiscard]] inline std::uint16_t* bfloat16_data(const at::Tensor& tensor) {
    return reinterpret_cast<std::uint16_t*>(tensor.data_ptr<at::BFloat16>());
}

// Calls `work(parameter, gradient, first, last)` over ranges of elements, in parallel.
template <class Work>
void over_elements(at::Tensor& parameter, const at::Tensor& gradient, const Work& work) {
    constexpr std::int64_t kElementsOfAThread = 1 << 15;
    const at::Tensor values = parameter.contiguous();
    const at::Tensor changes = gradient.contiguous();
    float* p = values.data_ptr<float>();
    const float* g = changes.data_ptr<float>();
    at::parallel_for(0, values.numel(), kElementsOfAThread,
                     [&](std::int64_t first, std::int64_t last) { work(p, g, first, last); });
    if (!values.is_same(parameter)) parameter.copy_(values);
}

}  // namespace ecopipe
