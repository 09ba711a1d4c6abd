#include "stage_runtime/engine/model/allocator.h"

#include <c10/core/CPUAllocator.h>

#include <limits>
#include <utility>

#include "core/tensor_memory.h"
#include "stage_runtime/engine/model/torch_version.h"

namespace ecopipe {
namespace {

thread_local std::size_t block_bytes_max = std::numeric_limits<std::size_t>::max();

struct CountingAllocator final : AnyTorchAllocator {
    c10::DataPtr give(std::size_t bytes) const override {
        void* memory = nullptr;
        if (bytes > 0) {
            TORCH_CHECK(bytes <= block_bytes_max, "a tensor of ", bytes, " bytes, more than the ",
                        block_bytes_max, " that one may have here");
            memory = allocate_tensor_memory(bytes);
            TORCH_CHECK(memory != nullptr, "out of memory: ", bytes, " bytes for a tensor");
        }
        return {memory, memory, &free_tensor_memory, c10::Device(c10::DeviceType::CPU)};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &free_tensor_memory; }
};

}  // namespace

void install_counting_allocator() {
    static CountingAllocator allocator;
    constexpr std::uint8_t kPriority = 1;  // above the default allocator's
    static const bool installed = (c10::SetCPUAllocator(&allocator, kPriority), true);
    static_cast<void>(installed);
}

LargestBlock::LargestBlock(std::size_t bytes) : before_(std::exchange(block_bytes_max, bytes)) {}
LargestBlock::~LargestBlock() { block_bytes_max = before_; }

}  // namespace ecopipe
