#pragma once
// Bounds on what a stage keeps of what its peers send, besides those of transport/limits.h.

#include <cstddef>

namespace ecopipe {

// Tensors that wait for their action, of all peers; far above what a schedule has in flight.
inline constexpr std::size_t kWaitingBytesMax = 4ULL << 30;
// Tensors of a configuration that this stage has not been given yet.
inline constexpr std::size_t kEarlyTensorsMax = 1U << 16;
// They are nobody's yet, so they leave room for those that are expected.
inline constexpr std::size_t kEarlyBytesMax = kWaitingBytesMax / 2;

}  // namespace ecopipe
