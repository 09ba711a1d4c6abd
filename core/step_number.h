#pragma once
// How steps and epochs are numbered, and how a person reads a step's number.

#include <fmt/format.h>

#include <cstdint>
#include <string>

namespace ecopipe {

inline constexpr unsigned kRoundShift = 24;

// The first step and epoch of a federated round: rounds key their draws far apart, so that neither
// steps nor epochs of two rounds ever share a number.
[[nodiscard]] constexpr std::uint64_t round_key(std::uint64_t round) {
    return round << kRoundShift;
}

// "step 7", or "round 3, step 7" in a federation; `number` counts from 1.
[[nodiscard]] inline std::string step_text(std::uint64_t number) {
    const std::uint64_t round = number >> kRoundShift;
    if (round == 0) return fmt::format("step {}", number);
    return fmt::format("round {}, step {}", round, number - round_key(round));
}

}  // namespace ecopipe
