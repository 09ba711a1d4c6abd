// model.safetensors; what is accepted takes no more memory than its file.
#include "stage_runtime/data/safetensors.h"

#include "fuzz/target.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace ecopipe;
    if (const auto tensors = parse_safetensors(fuzz::text(data, size), "model.safetensors")) {
        std::size_t total = 0;
        for (const NamedTensor& entry : *tensors) total += entry.tensor.bytes();
        ECOPIPE_CHECK(total <= size);
    }
    return 0;
}
