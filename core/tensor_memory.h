#pragma once
// The memory of every tensor of the process, torch's and our own: aligned blocks that are counted.
// Any thread. Blocks come from malloc: with the thresholds that run_program sets it keeps freed
// pages (docs/MEASUREMENTS.md, "Allocator").

#include <cstddef>

namespace ecopipe {

inline constexpr std::size_t kTensorAlignment = 64;  // a cache line: vector loads are aligned

// Null when there is none left.
[[nodiscard]] void* allocate_tensor_memory(std::size_t bytes);
void free_tensor_memory(void* memory);  // null is nothing

// Bytes alive now, and the most since the last reset.
[[nodiscard]] std::size_t live_tensor_bytes();
[[nodiscard]] std::size_t peak_tensor_bytes();
void reset_peak_tensor_bytes();

}  // namespace ecopipe
