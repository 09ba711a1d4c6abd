#pragma once
// What a device's memory is taken for: one list for what a plan predicts and what a device counts.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace ecopipe {

// The order is that of the wire.
enum class MemoryUse : std::uint8_t {
    kWeights,     // parameters and buffers, and the buffers as they were before the step
    kGradients,   // the step's sums
    kMoments,     // the optimiser's state
    kStash,       // what backwards need of the forwards that ran
    kWorkspace,   // of the layer that runs, its outputs and their gradients included
    kArriving,    // what others send, until it is no longer needed
    kLeaving,     // what is sent, until the network has it
    kEvaluation,  // of the layers that run in an evaluation
    kRecovery,    // snapshots, others' replicas, states on their way
};
inline constexpr std::size_t kMemoryUses = 9;
inline constexpr std::array<MemoryUse, kMemoryUses> kAllMemoryUses{
    MemoryUse::kWeights, MemoryUse::kGradients,  MemoryUse::kMoments,
    MemoryUse::kStash,   MemoryUse::kWorkspace,  MemoryUse::kArriving,
    MemoryUse::kLeaving, MemoryUse::kEvaluation, MemoryUse::kRecovery};

// "weights", "gradients", ..., as in run.json and plan.json.
[[nodiscard]] std::string_view memory_use_name(MemoryUse use);

// Bytes for each use.
class MemoryByUse {
  public:
    [[nodiscard]] std::uint64_t& operator[](MemoryUse use) {
        return bytes_[static_cast<std::size_t>(use)];
    }
    [[nodiscard]] std::uint64_t operator[](MemoryUse use) const {
        return bytes_[static_cast<std::size_t>(use)];
    }
    [[nodiscard]] std::uint64_t total() const;
    [[nodiscard]] bool operator==(const MemoryByUse&) const = default;

    template <class Archive>
    void serialize(Archive& ar) {
        for (std::uint64_t& bytes : bytes_) ar(bytes);
    }

  private:
    std::array<std::uint64_t, kMemoryUses> bytes_{};
};

}  // namespace ecopipe
