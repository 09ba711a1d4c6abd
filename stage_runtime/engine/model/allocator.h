#pragma once
// The CPU allocator of every torch tensor in the process: core/tensor_memory.h, which
// counts.

namespace ecopipe {

// Makes torch allocate through it; later calls do nothing.
void install_counting_allocator();

}  // namespace ecopipe
