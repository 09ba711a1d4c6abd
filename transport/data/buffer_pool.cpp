#include "transport/data/buffer_pool.h"

#include <atomic>

namespace ecopipe {
namespace {

bool idle(const HostTensor& buffer) { return buffer.owner().use_count() == 1; }

}  // namespace

HostTensor BufferPool::take(DType dtype, const Shape& shape) {
    const std::size_t bytes = *checked_bytes(dtype, shape);
    auto& same_size = buffers_[bytes];
    for (HostTensor& buffer : same_size) {
        if (!idle(buffer)) continue;
        // The last reads of whoever held it happen before our writes.
        std::atomic_thread_fence(std::memory_order_acquire);
        return HostTensor::wrap(dtype, shape, buffer.data(), buffer.owner());
    }
    drop_if_too_many_are_idle();
    same_size.push_back(HostTensor::allocate(dtype, shape));
    HostTensor& fresh = same_size.back();
    return HostTensor::wrap(dtype, shape, fresh.data(), fresh.owner());
}

void BufferPool::drop_idle() {
    for (auto& [bytes, buffers] : buffers_) std::erase_if(buffers, idle);
}

void BufferPool::drop_if_too_many_are_idle() {
    std::size_t unused = 0;
    for (const auto& [bytes, buffers] : buffers_)
        for (const HostTensor& buffer : buffers) unused += idle(buffer) ? bytes : 0;
    if (unused > kPoolIdleBytesMax) drop_idle();
}

}  // namespace ecopipe
