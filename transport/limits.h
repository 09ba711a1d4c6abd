#pragma once
// Every bound on what a peer or a stranger can make a process hold or do, with its default. What
// they add up to is in docs/SECURITY.md, "Memory".

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace ecopipe {

// ---- one message
inline constexpr std::size_t kFramesMax = 3;
// A plan of a deep model; the sizes of kStepMicroBatchesMax micro-batches.
inline constexpr std::size_t kBodyBytesMax = (4U << 20) + 1024;
inline constexpr std::size_t kPayloadBytesMax = 1U << 20;  // one chunk
// What a listening socket accepts in one frame: only a portal or a server says more.
inline constexpr std::size_t kListenFrameBytesMax = 1U << 20;
inline constexpr std::size_t kTextBytesMax = 2U << 20;
inline constexpr std::size_t kElementsMax = 1U << 20;  // of one list

// ---- names and numbers in messages
inline constexpr std::size_t kNameBytesMax = 128;
inline constexpr std::size_t kPatternsMax = 256;  // of --freeze
inline constexpr std::size_t kClassWeightsMax = 1000000;
inline constexpr std::size_t kReasonBytesMax = 8192;
inline constexpr std::size_t kStepMicroBatchesMax = 1U << 20;
inline constexpr std::size_t kTraceActionsMax = 16384;  // of one Trace or Done
inline constexpr std::size_t kTraceLossesMax = 8192;    // likewise
inline constexpr std::uint32_t kWireLayersMax = 1U << 16;
inline constexpr std::uint16_t kOutputsMax = 64;
inline constexpr std::size_t kStateNameBytesMax = 1024;
inline constexpr std::size_t kClassesMax = 1U << 16;           // that have names
inline constexpr std::size_t kClassNameBytesMax = 255;         // as a directory's name
inline constexpr std::size_t kClassListBytesMax = 256U << 10;  // all names of one list
inline constexpr std::size_t kIntroducedMax = 1024;            // devices of one cluster

// ---- tensors
inline constexpr std::size_t kTensorBytesMax = 2ULL << 30;
// That have arrived at one data plane and are not used up, of all peers.
inline constexpr std::size_t kArrivedBytesMax = 4ULL << 30;
inline constexpr std::size_t kDataPeersMax = 256;  // that dialled one data port

// ---- queues
inline constexpr int kSendQueueMessages = 1000;   // data channels stay far below by credits
inline constexpr int kReceiveQueueMessages = 32;  // whole messages, per connection
// Bytes that arrived on one connection since its last whole message: more is a message that never
// ends, which ZeroMQ would collect without bound.
inline constexpr std::size_t kUnfinishedBytesMax = 16U << 20;
inline constexpr auto kUnfinishedCheckEvery = std::chrono::milliseconds(10);
// Control messages of one device that the portal has not handled yet.
inline constexpr std::size_t kControlBacklogBytes = 16U << 20;
inline constexpr std::size_t kControlBacklogMessages = 4096;

// ---- connections, of one listening socket
inline constexpr std::size_t kConnectionsMax = 1024;
inline constexpr std::size_t kConnectionsPerAddress = 256;
// Connections that have not said one message yet. One more drops the oldest of the address that has
// the most, so that strangers push out one another.
inline constexpr std::size_t kSilentConnectionsMax = 16;
// New connections of one address: a burst, and then so many a second.
inline constexpr double kHandshakeBurst = 256;
inline constexpr double kHandshakesPerSecond = 64;
inline constexpr int kHandshakeMs = 5000;  // to finish one
// Addresses whose rate is remembered; beyond, the one that was quiet for longest is forgotten.
inline constexpr std::size_t kAddressesMax = 4096;

// ---- keys
inline constexpr std::size_t kKeyFileBytesMax = 4096;
inline constexpr std::size_t kAllowedKeysMax = 4096;
inline constexpr auto kKeysCheckEvery = std::chrono::milliseconds(200);

// ---- log lines about strangers: a burst, and then so many a second
inline constexpr double kStrangerLogBurst = 10;
inline constexpr double kStrangerLogsPerSecond = 1;

}  // namespace ecopipe
