// A checkpoint; half of the inputs get the right checksum of their header, to come further. What is
// accepted takes no more memory than its file.
#include "orchestrator/train/checkpoint.h"

#include <algorithm>
#include <cstring>

#include "core/crc32c.h"
#include "fuzz/target.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace ecopipe;
    constexpr std::size_t kPreamble = 16;
    if (size == 0) return 0;
    std::string file(fuzz::text(data + 1, size - 1));
    if (data[0] % 2 == 1 && file.size() >= kPreamble) {
        std::uint32_t header = 0;
        std::memcpy(&header, file.data() + 8, sizeof header);
        header =
            std::min<std::uint32_t>(header, static_cast<std::uint32_t>(file.size() - kPreamble));
        const std::uint32_t crc = crc32c(std::as_bytes(std::span(file)).subspan(kPreamble, header));
        std::memcpy(file.data() + 8, &header, sizeof header);
        std::memcpy(file.data() + 12, &crc, sizeof crc);
    }
    const fuzz::MemoryFile input(file);
    if (const auto checkpoint = read_checkpoint(input.path())) {
        std::size_t total = 0;
        for (const NamedTensor& entry : checkpoint->state) total += entry.tensor.bytes();
        ECOPIPE_CHECK(total <= size);
    }
    return 0;
}
