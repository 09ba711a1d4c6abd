#pragma once
// The CPU allocator of every torch tensor in the process: core/tensor_memory.h, which
// counts.

#include <cstddef>

namespace ecopipe {

// Makes torch allocate through it; later calls do nothing.
void install_counting_allocator();

// While it lives, torch gets no larger block on this thread; what asks for one throws c10::Error.
class LargestBlock {
  public:
    explicit LargestBlock(std::size_t bytes);
    ~LargestBlock();
    LargestBlock(const LargestBlock&) = delete;
    LargestBlock& operator=(const LargestBlock&) = delete;

  private:
    std::size_t before_;
};

}  // namespace ecopipe
