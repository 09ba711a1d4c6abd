#pragma once
// How steps and epochs are numbered, and how a person reads a step's number.

#include <fmt/format.h>

#include <cstdint>
#include <string>

namespace ecopipe {

inline constexpr unsigned kRepeatShift = 24;
inline constexpr unsigned kRepeatBits = 12;

// The first step and epoch of a federated round: rounds key their draws far apart, so that neither
// steps nor epochs of two rounds ever share a number. A cluster that trains from the same version
// again draws anew each time; after 4096 times the draws come again.
[[nodiscard]] constexpr std::uint64_t round_key(std::uint64_t round, std::uint32_t repeat = 0) {
    return ((round << kRepeatBits) | (repeat & ((1U << kRepeatBits) - 1))) << kRepeatShift;
}

// "step 7", or "round 3, step 7" in a federation; `number` counts from 1.
[[nodiscard]] inline std::string step_text(std::uint64_t number) {
    const std::uint64_t key = number >> kRepeatShift;
    if (key == 0) return fmt::format("step {}", number);
    return fmt::format("round {}, step {}", key >> kRepeatBits, number - (key << kRepeatShift));
}

}  // namespace ecopipe
