// A PNG file, as it is and with the sums of its chunks made right: what is behind them would hardly
// be reached otherwise.
#include <zlib.h>

#include "fuzz/picture.h"

namespace {

constexpr std::size_t kSignatureBytes = 8;
constexpr std::size_t kAroundData = 12;  // length, name, sum

std::string with_right_sums(std::string bytes) {
    const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(bytes[at]); };
    for (std::size_t at = kSignatureBytes; bytes.size() >= at + kAroundData;) {
        const std::size_t length = std::size_t{byte(at)} << 24 | std::size_t{byte(at + 1)} << 16 |
                                   std::size_t{byte(at + 2)} << 8 | byte(at + 3);
        if (length > bytes.size() - at - kAroundData) break;
        const auto sum = ::crc32(0, reinterpret_cast<const Bytef*>(bytes.data() + at + 4),
                                 static_cast<uInt>(length + 4));
        for (std::size_t i = 0; i < 4; ++i)
            bytes[at + 8 + length + i] = static_cast<char>(sum >> (24 - 8 * i));
        at += length + kAroundData;
    }
    return bytes;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace ecopipe;
    const std::string_view file = fuzz::text(data, size);
    fuzz::decode_any_picture(file);
    fuzz::decode_any_picture(with_right_sums(std::string(file)));
    return 0;
}
