#pragma once
// The memory of every tensor of the process, torch's and our own: aligned blocks that are counted,
// by what they are taken for. Any thread. Blocks come from malloc: with the thresholds that
// run_program sets it keeps freed pages (docs/MEASUREMENTS.md, "Allocator").
//
// A block's use is that of the scope which its thread is in when it is taken; where nothing is
// said, workspace. What is workspace when the next layer begins was kept for a backward: it counts
// as stash from then on (begin_layer_memory), for no one can tell which of the tensors that a
// forward makes its graph will keep.

#include <cstddef>

#include "core/memory_use.h"

namespace ecopipe {

inline constexpr std::size_t kTensorAlignment = 64;  // a cache line: vector loads are aligned

// Null when there is none left.
[[nodiscard]] void* allocate_tensor_memory(std::size_t bytes);
void free_tensor_memory(void* memory);  // null is nothing
// A block that changes hands. The caller holds it.
void rename_tensor_memory(void* memory, MemoryUse use);

// Of this thread, while it lives.
class MemoryScope {
  public:
    explicit MemoryScope(MemoryUse use);
    ~MemoryScope();
    MemoryScope(const MemoryScope&) = delete;
    MemoryScope& operator=(const MemoryScope&) = delete;

  private:
    MemoryUse before_;
};

// By the one thread that runs layers.
void begin_layer_memory();

// Bytes alive now, and the most since the last reset, with what they were then.
[[nodiscard]] std::size_t live_tensor_bytes();
[[nodiscard]] std::size_t peak_tensor_bytes();
[[nodiscard]] MemoryByUse peak_tensor_memory();
void reset_peak_tensor_bytes();

}  // namespace ecopipe
