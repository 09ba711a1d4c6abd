#include "transport/wire/frame.h"

#include <fmt/format.h>

#include <cstring>

#include "core/crc32c.h"

namespace ecopipe {
namespace {

std::uint32_t header_checksum(const FrameHeader& header) {
    return crc32c(std::as_bytes(std::span(&header, 1)).first(offsetof(FrameHeader, header_crc)));
}

tl::unexpected<Error> bad(std::string reason) {
    return fail(ExitCode::kRunFailed, std::move(reason));
}

}  // namespace

std::array<std::byte, sizeof(FrameHeader)> seal(FrameHeader header, std::string_view body,
                                                std::size_t payload_bytes) {
    header.body_bytes = static_cast<std::uint32_t>(body.size());
    header.payload_bytes = payload_bytes;
    header.body_crc = crc32c(std::as_bytes(std::span(body)));
    header.header_crc = header_checksum(header);
    return std::bit_cast<std::array<std::byte, sizeof(FrameHeader)>>(header);
}

Result<FrameHeader> open_frames(std::span<const std::span<const std::byte>> frames) {
    if (frames.size() < 2 || frames.size() > kFramesMax)
        return bad(fmt::format("expected 2 or 3 frames, found {}", frames.size()));
    if (frames[0].size() != sizeof(FrameHeader))
        return bad(fmt::format("expected a header of {} bytes, found {}", sizeof(FrameHeader),
                               frames[0].size()));
    FrameHeader header;
    std::memcpy(&header, frames[0].data(), sizeof header);
    if (header.magic != kFrameMagic) return bad("not an ecopipe message");
    if (header.protocol != kProtocol)
        return fail(ExitCode::kMismatch, fmt::format("speaks protocol {}, this program speaks {}",
                                                     header.protocol, kProtocol));
    if (header.header_crc != header_checksum(header)) return bad("header checksum does not match");
    const std::size_t payload = frames.size() == kFramesMax ? frames[2].size() : 0;
    if (header.body_bytes != frames[1].size() || header.payload_bytes != payload)
        return bad("frame sizes differ from the header's");
    if (frames[1].size() > kBodyBytesMax || payload > kPayloadBytesMax)
        return bad("a frame is larger than its limit");
    if (header.flags != 0 || header.reserved != 0) return bad("unknown flags");
    if (header.compat > 1 || header.version < 1) return bad("needs a newer reader");
    if (header.body_crc != crc32c(frames[1])) return bad("body checksum does not match");
    return header;
}

}  // namespace ecopipe
