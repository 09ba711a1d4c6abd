#pragma once
// Where a tensor belongs, and one that has arrived.

#include <compare>
#include <cstdint>
#include <memory>
#include <string>

#include "core/clock.h"
#include "core/host_tensor.h"

namespace ecopipe {

enum class StepMode : std::uint8_t { kTrain = 0, kEvaluate = 1 };

// Values are part of the wire: never renumber.
enum class TensorKind : std::uint8_t {
    kActivation = 1,
    kGradient = 2,
    kInput = 3,
    kLabel = 4,
    kState = 5,
    kEvalActivation = 6,
    kEvalInput = 7,
    kEvalLabel = 8,
    kReplica = 9,  // a layer's state to keep for another device
    kProbe = 10,   // measures a link; the receiver answers one that wants a gradient back
    // Once a step, of a tied weight whose home and user are on two stages:
    kTiedGradient = 11,  // what the user has found, to the home
    kTiedWeight = 12,    // the updated weight, to the user
    // Once a step, between the devices that hold a stage together (sum_blocks.h); `producer` is the
    // layer, `name` LayerGradient::missing:
    kGradientSum = 13,    // at the tree's node `slice`, to the layer's home
    kGradientTotal = 14,  // over all blocks, from there
    kStatistics = 15,     // what batch norm found in a micro-batch; `producer` the stage's first
};
[[nodiscard]] constexpr bool is_state(TensorKind kind) {
    return kind == TensorKind::kState || kind == TensorKind::kReplica;
}
[[nodiscard]] constexpr bool is_tied(TensorKind kind) {
    return kind == TensorKind::kTiedGradient || kind == TensorKind::kTiedWeight;
}
[[nodiscard]] constexpr bool is_sum(TensorKind kind) {
    return kind == TensorKind::kGradientSum || kind == TensorKind::kGradientTotal ||
           kind == TensorKind::kStatistics;
}

// Kinds that are sent as fast as there is room, not as a schedule's counts allow.
[[nodiscard]] constexpr bool is_streamed(TensorKind kind) {
    return kind == TensorKind::kInput || kind == TensorKind::kLabel ||
           kind == TensorKind::kEvalActivation || kind == TensorKind::kEvalInput ||
           kind == TensorKind::kEvalLabel;
}

// The portal's own name on data channels; no device may have it.
inline constexpr const char* kPortalPeer = "@portal";

// Where a tensor belongs: never "the next stage".
struct TensorAddress {
    std::uint32_t generation = 0;
    std::uint64_t step = 0;
    TensorKind kind = TensorKind::kActivation;
    std::uint32_t micro_batch = 0;
    std::uint16_t slice = 0;
    std::uint32_t producer = 0;
    std::uint16_t output = 0;
    std::uint16_t outputs = 1;
    bool gradient_returns = false;
    std::string name;
    friend auto operator<=>(const TensorAddress&, const TensorAddress&) = default;
};

struct Delivery {
    std::string peer;
    TensorAddress address;
    HostTensor tensor;
    Instant arrived = monotonic_now();
    std::shared_ptr<void> counted{};  // against kArrivedBytesMax, while it lives
};

}  // namespace ecopipe
