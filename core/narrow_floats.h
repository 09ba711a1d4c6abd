#pragma once
// IEEE binary16 and bfloat16 to binary32 and back, rounded to nearest, ties to even. Pure.

#include <bit>
#include <cstdint>

namespace ecopipe {

inline constexpr std::uint32_t kFloatSign = 0x80000000U;
inline constexpr std::uint32_t kFloatInfinity = 0x7f800000U;

// Written without branches on the value, so that compilers turn the loops below into vector code.
[[nodiscard]] inline std::uint16_t to_half(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (bits & kFloatSign) >> 16U;
    const std::uint32_t magnitude = bits & ~kFloatSign;
    // Normal halves: the exponent moves from a bias of 127 to one of 15, the mantissa loses 13
    // bits.
    const std::uint32_t odd = (magnitude >> 13U) & 1U;
    const std::uint32_t normal = (magnitude - 0x38000000U + 0xfffU + odd) >> 13U;
    // Below 2^-14: adding 0.5 leaves the subnormal half in the low bits, rounded by the addition.
    const std::uint32_t subnormal =
        std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3f000000U;
    const std::uint32_t special = magnitude > kFloatInfinity ? 0x7e00U : 0x7c00U;
    const std::uint32_t finite = magnitude < 0x38800000U ? subnormal : normal;
    // 65520 and above round to infinity.
    return static_cast<std::uint16_t>(sign | (magnitude >= 0x477ff000U ? special : finite));
}

[[nodiscard]] inline float from_half(std::uint16_t half) {
    const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16U;
    const std::uint32_t magnitude = static_cast<std::uint32_t>(half & 0x7fffU) << 13U;
    // A float whose exponent is too small by 112; the product rights it, subnormals included.
    const float scaled = std::bit_cast<float>(magnitude) * 0x1p112F;
    const std::uint32_t finite = std::bit_cast<std::uint32_t>(scaled);
    const std::uint32_t special = magnitude | kFloatInfinity;
    return std::bit_cast<float>(sign | (magnitude >= 0x0f800000U ? special : finite));
}

[[nodiscard]] inline std::uint16_t to_bfloat(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U;
    const std::uint32_t quiet = (bits >> 16U) | 0x40U;
    return static_cast<std::uint16_t>((bits & ~kFloatSign) > kFloatInfinity ? quiet : rounded);
}

[[nodiscard]] inline float from_bfloat(std::uint16_t value) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16U);
}

}  // namespace ecopipe
