#pragma once
// Ids that can be confused with one another are types of their own.

#include <compare>
#include <cstdint>

namespace ecopipe {

template <class Tag, class Rep>
struct Id {
    Rep value{};
    friend constexpr auto operator<=>(const Id&, const Id&) = default;
};

using RunId = Id<struct RunTag, std::uint64_t>;              // one training run of one cluster
using Generation = Id<struct GenerationTag, std::uint32_t>;  // raised by every replay or re-plan
using StepId = Id<struct StepTag, std::uint64_t>;            // optimiser steps, from 0
using StageId = Id<struct StageTag, std::uint16_t>;          // position in the pipeline, from 0
using SliceId = Id<struct SliceTag, std::uint16_t>;  // v-th group of layers on one device, from 0
using MicroBatchId = Id<struct MicroBatchTag, std::uint32_t>;  // position in the batch, from 0
using LayerId = Id<struct LayerTag, std::uint32_t>;            // position in the model, from 0

}  // namespace ecopipe
