#pragma once
// The CPU allocator of every torch tensor in the process: aligned malloc that counts.

#include <cstddef>

namespace ecopipe {

// Makes torch allocate through it; later calls do nothing.
void install_counting_allocator();

// Bytes of tensor storages alive now, and the most since the last reset. Any thread.
[[nodiscard]] std::size_t live_tensor_bytes();
[[nodiscard]] std::size_t peak_tensor_bytes();
void reset_peak_tensor_bytes();

}  // namespace ecopipe
