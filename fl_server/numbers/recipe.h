#pragma once
// What a federation does with numbers, as data: a strategy decides it, the aggregator executes it,
// the journal records it, `replay` repeats it. Pure; no tensors here.
//
// Notation: G is the current global model, B(v) the global model of version v, and an update u
// trained from B(v) contributes its delta w_u - B(v). A *slot* is one fixed-point accumulator of
// weighted deltas.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ecopipe {

using SlotId = std::uint32_t;

// A model that recipes keep under this name is what people get: it is tested, published and may
// become the best, in place of the global model, from which clients go on training all the same.
inline constexpr const char* kServedModel = "served";

// acc[slot] += weight * clip * (w_u - B(v)); weights are finite and > 0. Arrival order is no input.
struct Fold {
    std::string cluster;
    std::uint64_t sequence = 0;  // of the cluster's admitted update
    SlotId slot = 0;
    double weight = 0;  // sample count, staleness factor, or their product
};

// How a slot's updates become one delta.
struct Combine {
    enum class Rule : std::uint8_t { kMean, kCoordinateMedian, kTrimmedMean, kMultiKrum };
    Rule rule = Rule::kMean;
    // kMean: what the weighted sum is divided by; 0: by the sum of the weights.
    double divisor = 0;
    double trim = 0;              // kTrimmedMean: share cut at each end, in [0, 0.5)
    std::uint32_t byzantine = 0;  // kMultiKrum: f
    std::uint32_t keep = 0;       // kMultiKrum: m
};

struct Term {
    enum class Source : std::uint8_t { kGlobal, kBase, kDelta, kStored };
    Source source = Source::kGlobal;
    std::uint64_t version = 0;  // kBase
    SlotId slot = 0;            // kDelta
    std::string stored;         // kStored: a model kept by an earlier recipe
    double coefficient = 1;
};

// Reddi et al., "Adaptive Federated Optimization" (ICLR 2021), Algorithm 2; momentum is FedAvgM.
struct ServerOptimizer {
    enum class Kind : std::uint8_t { kMomentum, kAdam, kYogi };
    Kind kind = Kind::kMomentum;
    double lr = 1;
    double beta1 = 0.9;
    double beta2 = 0.99;
    double tau = 1e-3;
};

// One commit: first every slot it names is combined, then `keep` models are stored, then the next
// global model is the sum of `next`; with an optimiser, next - G is the pseudo-gradient of floating
// parameters (buffers take `next` itself). Integer buffers take the maximum over G and all folded
// updates.
struct Recipe {
    struct Close {
        SlotId slot = 0;
        Combine combine;
    };
    struct Keep {
        std::string name;
        std::vector<Term> terms;
    };
    std::vector<Close> close;
    std::vector<Keep> keep;
    std::vector<Term> next;
    std::optional<ServerOptimizer> optimizer;
};

}  // namespace ecopipe
