#pragma once
// The first frame of every message: a fixed header of 72 bytes, little-endian. docs/WIRE.md is the
// truth; this file is its implementation. A message is [header, body] or [header, body, payload].

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "core/result.h"
#include "transport/limits.h"

namespace ecopipe {

static_assert(std::endian::native == std::endian::little, "the wire is little-endian");

// Rises with any change of the wire until version 1.0; a peer of another number is refused with
// exit code 5.
inline constexpr std::uint16_t kProtocol = 11;
inline constexpr std::array<char, 4> kFrameMagic{'E', 'C', 'O', 'P'};

// Numbers are never reused.
enum class MessageType : std::uint16_t {
    // control, stage and portal
    kHello = 1,
    kWelcome = 2,
    kRefuse = 3,
    kPing = 4,
    kPong = 5,
    kConfigure = 6,
    kReady = 7,
    kBegin = 8,
    kDone = 9,
    kCommit = 10,
    kCommitted = 11,
    kFetch = 12,
    kFetched = 13,
    kFailed = 14,
    kEnd = 15,
    kStored = 16,
    kLeave = 17,
    kProbeLink = 18,
    kLinkProbed = 19,
    kIntroduce = 30,
    kUnreached = 31,
    kTrace = 32,
    kMemoryMoved = 33,
    // data, between devices that exchange tensors
    kAttach = 20,
    kTensorChunk = 21,
    kCredit = 22,
    kAttached = 23,
    // federation, cluster and server
    kClusterHello = 40,
    kClusterWelcome = 41,
    kTask = 42,
    kModelRequest = 43,
    kModelChunk = 44,
    kUpdateSlice = 45,
    kUpdateChunk = 46,
    kVerdict = 47,
    kFederationEnd = 48,
    kUploadGrant = 49,
    kClusterStatus = 50,
    kClassList = 51,
};

struct FrameHeader {
    std::array<char, 4> magic = kFrameMagic;
    std::uint16_t protocol = kProtocol;
    std::uint16_t type = 0;
    std::uint32_t flags = 0;  // none defined yet; must be 0
    std::uint32_t body_bytes = 0;
    std::uint64_t payload_bytes = 0;
    std::uint64_t run = 0;       // the run's id, drawn by the portal; 0 before Welcome
    std::uint64_t sequence = 0;  // per sender and connection, from 0
    std::uint64_t step = 0;
    std::uint32_t generation = 0;
    std::uint32_t micro_batch = 0;
    std::uint16_t slice = 0;
    std::uint8_t version = 1;  // of this message type's body
    std::uint8_t compat = 1;   // the oldest reader that understands it
    std::uint32_t body_crc = 0;
    std::uint32_t reserved = 0;
    std::uint32_t header_crc = 0;  // CRC-32C of the bytes before it
};
static_assert(sizeof(FrameHeader) == 72 && std::has_unique_object_representations_v<FrameHeader>);
static_assert(offsetof(FrameHeader, header_crc) == 68);

// Fills sizes and checksums and returns the header's bytes.
[[nodiscard]] std::array<std::byte, sizeof(FrameHeader)> seal(FrameHeader header,
                                                              std::string_view body,
                                                              std::size_t payload_bytes);

// Checks the frames of one message in this order: count, sizes, header checksum, magic, protocol,
// version, body checksum. On success all sizes agree. Errors: kMismatch for another protocol, else
// kRunFailed; reasons are short and carry no bytes of the peer.
[[nodiscard]] Result<FrameHeader> open_frames(std::span<const std::span<const std::byte>> frames);

}  // namespace ecopipe
