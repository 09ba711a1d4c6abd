#include "stage_runtime/engine/model/allocator.h"

#include <c10/core/CPUAllocator.h>

#include "core/tensor_memory.h"
#include "stage_runtime/engine/model/torch_version.h"

namespace ecopipe {
namespace {

struct CountingAllocator final : AnyTorchAllocator {
    c10::DataPtr give(std::size_t bytes) const override {
        void* memory = nullptr;
        if (bytes > 0) {
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

}  // namespace ecopipe
