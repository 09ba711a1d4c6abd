#pragma once
// What a stage says to its portal.

#include <variant>

#include "transport/wire/messages.h"

namespace ecopipe {

using StageMessage = std::variant<Ready, Trace, Done, Committed, Stored, Fetched, LinkProbed,
                                  Unreached, MemoryMoved, Leave, Failed>;

class StageUplink {
  public:
    StageUplink() = default;
    StageUplink(const StageUplink&) = delete;
    StageUplink& operator=(const StageUplink&) = delete;
    virtual ~StageUplink() = default;
    // The header's generation, step and micro-batch are kept; type and run are filled in. Lost
    // when the connection is.
    virtual void send(const FrameHeader& header, StageMessage message) = 0;
};

}  // namespace ecopipe
