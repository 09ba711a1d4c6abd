#pragma once
// Numbers that count different things and must not be mixed up.

#include <compare>
#include <cstddef>
#include <cstdint>

namespace ecopipe {

template <class What>
struct Id {
    std::uint32_t value = 0;
    [[nodiscard]] constexpr std::size_t index() const { return value; }
    friend constexpr auto operator<=>(const Id&, const Id&) = default;
};

using StageId = Id<struct StageTag>;            // a plan's stages, in layer order
using SliceId = Id<struct SliceTag>;            // the stages of one device, in layer order
using MicroBatchId = Id<struct MicroBatchTag>;  // of one step or evaluation

}  // namespace ecopipe
