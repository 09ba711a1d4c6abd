#include "core/tensor_memory.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>

namespace ecopipe {
namespace {

std::atomic<std::size_t> g_live{0};  // torch takes one allocator a process: so are its counters
std::atomic<std::size_t> g_peak{0};

}  // namespace

void* allocate_tensor_memory(std::size_t bytes) {
    void* memory = nullptr;
    if (::posix_memalign(&memory, kTensorAlignment, bytes == 0 ? 1 : bytes) != 0) return nullptr;
    const std::size_t usable = ::malloc_usable_size(memory);
    const std::size_t live = g_live.fetch_add(usable, std::memory_order_relaxed) + usable;
    std::size_t peak = g_peak.load(std::memory_order_relaxed);
    while (live > peak && !g_peak.compare_exchange_weak(peak, live, std::memory_order_relaxed)) {
    }
    return memory;
}

void free_tensor_memory(void* memory) {
    if (memory == nullptr) return;
    g_live.fetch_sub(::malloc_usable_size(memory), std::memory_order_relaxed);
    std::free(memory);
}

std::size_t live_tensor_bytes() { return g_live.load(std::memory_order_relaxed); }
std::size_t peak_tensor_bytes() { return g_peak.load(std::memory_order_relaxed); }
void reset_peak_tensor_bytes() { g_peak = g_live.load(); }

}  // namespace ecopipe
