// The frames of one message. The first byte: how many, and whether the header is sealed for them,
// so that inputs get past the checksums.
#include <algorithm>
#include <cstring>
#include <vector>

#include "fuzz/target.h"
#include "transport/wire/frame.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace ecopipe;
    if (size == 0) return 0;
    const std::size_t count = data[0] % 6;
    const bool sealed = (data[0] & 0x80) != 0;
    auto rest = fuzz::bytes(data + 1, size - 1);
    std::vector<std::span<const std::byte>> frames;
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t wanted = i == 0 ? sizeof(FrameHeader) : rest.size() / (count - i);
        const auto part = rest.first(std::min(wanted, rest.size()));
        frames.push_back(part);
        rest = rest.subspan(part.size());
    }
    std::array<std::byte, sizeof(FrameHeader)> header{};
    if (sealed && frames.size() >= 2 && frames[0].size() == sizeof(FrameHeader)) {
        FrameHeader fields;
        std::memcpy(&fields, frames[0].data(), sizeof fields);
        header = seal(fields, {reinterpret_cast<const char*>(frames[1].data()), frames[1].size()},
                      frames.size() > 2 ? frames[2].size() : 0);
        frames[0] = header;
    }
    const auto opened = open_frames(frames);
    if (opened) {
        ECOPIPE_CHECK(opened->body_bytes == frames[1].size());
        ECOPIPE_CHECK(opened->payload_bytes == (frames.size() > 2 ? frames[2].size() : 0));
    }
    return 0;
}
