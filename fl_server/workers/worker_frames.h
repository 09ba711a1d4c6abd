#pragma once
// What a program and its worker processes say to each other over a socket pair: a kind, a JSON
// header, and bytes. Both ends are of one build on one machine: a frame that makes no sense is a
// bug or a dead peer.

#include <cstdint>
#include <string>

#include "core/strict_json.h"

namespace ecopipe {

enum class WorkerFrame : std::uint32_t { kSetup = 1, kTrain, kTest, kTrained, kTested, kError };

struct WorkerMessage {
    WorkerFrame kind = WorkerFrame::kError;
    Json header;
    std::string bytes;
};

// Whole, blocking. Errors: kRunFailed when the other end is gone, or a timeout of the socket ends.
[[nodiscard]] Result<void> send_worker_message(int descriptor, WorkerFrame kind, const Json& header,
                                               std::string_view bytes);
[[nodiscard]] Result<WorkerMessage> receive_worker_message(int descriptor);

}  // namespace ecopipe
