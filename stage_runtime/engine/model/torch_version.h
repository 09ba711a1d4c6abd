#pragma once
// The one place that knows LibTorch 1.13 from 2.x: what its sources call differently is here under
// one name. It includes torch, so only files that do may include it.

#include <ATen/Context.h>
#include <c10/core/Allocator.h>
#include <torch/version.h>

#include <cstddef>

#define ECOPIPE_TORCH_AT_LEAST(major, minor) \
    (TORCH_VERSION_MAJOR > (major) ||        \
     (TORCH_VERSION_MAJOR == (major) && TORCH_VERSION_MINOR >= (minor)))

static_assert(ECOPIPE_TORCH_AT_LEAST(1, 13), "LibTorch 1.13 or later is needed");

namespace ecopipe {

// What an allocator of our own implements. Since 2.3 torch's allocate() is no longer const, and an
// allocator also says how to copy what it gave.
class AnyTorchAllocator : public c10::Allocator {
  public:
    [[nodiscard]] virtual c10::DataPtr give(std::size_t bytes) const = 0;

#if ECOPIPE_TORCH_AT_LEAST(2, 3)
    c10::DataPtr allocate(std::size_t bytes) final { return give(bytes); }
    void copy_data(void* to, const void* from, std::size_t bytes) const final {
        default_copy_data(to, from, bytes);
    }
#else
    c10::DataPtr allocate(std::size_t bytes) const final { return give(bytes); }
#endif
};

// Since 2.1 torch fills each tensor that is made without values when it is asked for deterministic
// algorithms, a twentieth of a convolutional network's step; since 2.2 it can be told not to. No
// operator of the zoo or of graphs reads what it has not written.
inline void leave_new_tensors_unfilled() {
#if ECOPIPE_TORCH_AT_LEAST(2, 2)
    at::globalContext().setDeterministicFillUninitializedMemory(false);
#endif
}

}  // namespace ecopipe
