#include "stage_runtime/engine/allocator.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>

namespace ecopipe {
namespace {

constexpr std::size_t kAlignment = 64;

std::atomic<std::size_t> g_live{
    0};  // torch takes one allocator a process, so its counters are the process's
std::atomic<std::size_t> g_peak{0};

void release(void* memory) {
    if (memory == nullptr) return;
    g_live.fetch_sub(::malloc_usable_size(memory), std::memory_order_relaxed);
    std::free(memory);
}

struct CountingAllocator final : c10::Allocator {
    c10::DataPtr allocate(std::size_t bytes) const override {
        void* memory = nullptr;
        if (bytes > 0) {
            TORCH_CHECK(::posix_memalign(&memory, kAlignment, bytes) == 0, "out of memory: ", bytes,
                        " bytes for a tensor");
            const std::size_t live =
                g_live.fetch_add(::malloc_usable_size(memory), std::memory_order_relaxed) +
                ::malloc_usable_size(memory);
            std::size_t peak = g_peak.load(std::memory_order_relaxed);
            while (live > peak &&
                   !g_peak.compare_exchange_weak(peak, live, std::memory_order_relaxed)) {
            }
        }
        return {memory, memory, &release, c10::Device(c10::DeviceType::CPU)};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &release; }
};

}  // namespace

void install_counting_allocator() {
    static CountingAllocator allocator;
    constexpr std::uint8_t kPriority = 1;  // above the default allocator's
    static const bool installed = (c10::SetCPUAllocator(&allocator, kPriority), true);
    static_cast<void>(installed);
}

std::size_t live_tensor_bytes() { return g_live.load(std::memory_order_relaxed); }
std::size_t peak_tensor_bytes() { return g_peak.load(std::memory_order_relaxed); }
void reset_peak_tensor_bytes() { g_peak = g_live.load(); }

}  // namespace ecopipe
