#pragma once
// Tensors to receive into, used again: the sizes of a pipeline's messages repeat every micro-batch.
// One thread takes; what it took may be held and dropped by any.

#include <map>
#include <memory>
#include <vector>

#include "core/host_tensor.h"

namespace ecopipe {

inline constexpr std::size_t kPoolIdleBytesMax = 64U << 20;  // kept for later, beyond those in use

class BufferPool {
  public:
    // A tensor whose memory nobody else holds; allocates when all buffers of its size are in use.
    [[nodiscard]] HostTensor take(DType dtype, const Shape& shape);
    void drop_idle();  // all that nobody else holds

  private:
    // A buffer is free when the pool alone holds it.
    std::map<std::size_t, std::vector<HostTensor>> buffers_;  // by bytes
    void drop_if_too_many_are_idle();
};

}  // namespace ecopipe
