#pragma once
// The bounds of what is described here, whoever reads it.

#include <cstddef>

namespace ecopipe {

inline constexpr std::size_t kDevicesMax = 64;  // of one cluster
inline constexpr int kLayersMax = 4096;         // of one model
inline constexpr int kMicroBatchMax = 1 << 16;  // micro-batches of one step

}  // namespace ecopipe
