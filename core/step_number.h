#pragma once
// How steps and epochs are numbered, and how a person reads a step's number.

#include <fmt/format.h>

#include <cstdint>
#include <string>

namespace ecopipe {

inline constexpr unsigned kRoundShift = 24;
inline constexpr unsigned kRepeatShift = 52;

// The first step and epoch of a federated round: rounds key their draws far apart, so that neither
// steps nor epochs of two rounds ever share a number. A cluster that trains from the same version
// again draws anew each time; after 4096 times the draws come again.
[[nodiscard]] constexpr std::uint64_t round_key(std::uint64_t round, std::uint32_t repeat = 0) {
    return (std::uint64_t{repeat} << kRepeatShift) | (round << kRoundShift);
}

// "step 7", or "round 3, step 7" in a federation; `number` counts from 1.
[[nodiscard]] inline std::string step_text(std::uint64_t number) {
    if (number >> kRoundShift == 0) return fmt::format("step {}", number);
    const std::uint64_t key = number >> kRoundShift << kRoundShift;
    const std::uint64_t round = (key & ((std::uint64_t{1} << kRepeatShift) - 1)) >> kRoundShift;
    return fmt::format("round {}, step {}", round, number - key);
}

}  // namespace ecopipe
