#include "core/tensor_memory.h"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <utility>

#include "core/mutex.h"

namespace ecopipe {
namespace {

// Before the tensor, in an aligned piece of its own.
struct Header {
    std::size_t bytes;  // of the block, as malloc has it
    MemoryUse use;
};
constexpr std::size_t kHeaderBytes = kTensorAlignment;
static_assert(sizeof(Header) <= kHeaderBytes);

// Torch takes one allocator a process: so are its counters.
std::atomic<std::size_t> g_live{0};
std::atomic<std::size_t> g_peak{0};
std::array<std::atomic<std::size_t>, kMemoryUses> g_live_by_use{};
std::atomic<std::size_t> g_kept_workspace{0};  // what was workspace when the layer began
Mutex g_peak_mutex;
MemoryByUse g_peak_by_use ECOPIPE_GUARDED_BY(g_peak_mutex);

thread_local MemoryUse t_use = MemoryUse::kWorkspace;

std::atomic<std::size_t>& live_of(MemoryUse use) {
    return g_live_by_use[static_cast<std::size_t>(use)];
}

Header& header_of(void* memory) {
    return *reinterpret_cast<Header*>(static_cast<std::byte*>(memory) - kHeaderBytes);
}

MemoryByUse live_by_use() {
    MemoryByUse live;
    for (const MemoryUse use : kAllMemoryUses)
        live[use] = live_of(use).load(std::memory_order_relaxed);
    const std::size_t kept = std::min<std::size_t>(g_kept_workspace.load(std::memory_order_relaxed),
                                                   live[MemoryUse::kWorkspace]);
    live[MemoryUse::kWorkspace] -= kept;
    live[MemoryUse::kStash] += kept;
    return live;
}

void note_peak(std::size_t live) {
    const MutexLock lock(g_peak_mutex);
    if (live <= g_peak.load(std::memory_order_relaxed)) return;
    g_peak.store(live, std::memory_order_relaxed);
    g_peak_by_use = live_by_use();
}

}  // namespace

void* allocate_tensor_memory(std::size_t bytes) {
    void* block = nullptr;
    if (bytes > SIZE_MAX - kHeaderBytes ||
        ::posix_memalign(&block, kTensorAlignment, bytes + kHeaderBytes) != 0)
        return nullptr;
    const std::size_t usable = ::malloc_usable_size(block);
    new (block) Header{usable, t_use};
    live_of(t_use).fetch_add(usable, std::memory_order_relaxed);
    const std::size_t live = g_live.fetch_add(usable, std::memory_order_relaxed) + usable;
    if (live > g_peak.load(std::memory_order_relaxed)) note_peak(live);
    return static_cast<std::byte*>(block) + kHeaderBytes;
}

void free_tensor_memory(void* memory) {
    if (memory == nullptr) return;
    Header& header = header_of(memory);
    live_of(header.use).fetch_sub(header.bytes, std::memory_order_relaxed);
    g_live.fetch_sub(header.bytes, std::memory_order_relaxed);
    std::free(&header);
}

void rename_tensor_memory(void* memory, MemoryUse use) {
    Header& header = header_of(memory);
    live_of(header.use).fetch_sub(header.bytes, std::memory_order_relaxed);
    live_of(use).fetch_add(header.bytes, std::memory_order_relaxed);
    header.use = use;
}

MemoryScope::MemoryScope(MemoryUse use) : before_(std::exchange(t_use, use)) {}
MemoryScope::~MemoryScope() { t_use = before_; }

void begin_layer_memory() {
    g_kept_workspace.store(live_of(MemoryUse::kWorkspace).load(std::memory_order_relaxed),
                           std::memory_order_relaxed);
}

std::size_t live_tensor_bytes() { return g_live.load(std::memory_order_relaxed); }
std::size_t peak_tensor_bytes() { return g_peak.load(std::memory_order_relaxed); }

MemoryByUse peak_tensor_memory() {
    const MutexLock lock(g_peak_mutex);
    return g_peak_by_use;
}

void reset_peak_tensor_bytes() {
    const MutexLock lock(g_peak_mutex);
    g_peak.store(g_live.load(std::memory_order_relaxed), std::memory_order_relaxed);
    g_peak_by_use = live_by_use();
}

}  // namespace ecopipe
