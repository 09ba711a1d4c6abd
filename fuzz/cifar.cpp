// CIFAR-10's binary records.
#include "fuzz/target.h"
#include "stage_runtime/data/image_dataset.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace ecopipe;
    static const fuzz::MemoryDirectory kDirectory;
    kDirectory.put("test_batch.bin", fuzz::text(data, size));
    if (const auto read = read_cifar10(kDirectory.path(), false)) {
        ECOPIPE_CHECK(read->pixels.size() == read->labels.size() * 3 * 32 * 32);
        for (const std::uint8_t label : read->labels) ECOPIPE_CHECK(label < 10);
    }
    return 0;
}
