#pragma once
// What reaches the thread that decides for a cluster, whoever carried it there.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "domain/tensor_address.h"
#include "transport/wire/messages.h"

namespace ecopipe {

// One device's messages that wait to be handled: one that sends faster than it is heard is lost,
// instead of filling memory.
struct Backlog {
    std::atomic<std::size_t> messages{0};
    std::atomic<std::size_t> bytes{0};
};

namespace portal_event {
struct Joined {
    std::string device;
    Hello hello;
    std::string address;  // that it dialled from, "" if unknown
};
struct Message {
    std::string device;
    FrameHeader header;
    std::vector<std::byte> body;
    std::shared_ptr<Backlog> backlog{};
    // The message is taken off it.
    void handled() const {
        if (!backlog) return;
        --backlog->messages;
        backlog->bytes -= body.size();
    }
};
struct Lost {
    std::string device;
    std::string how;
};
struct Attached {
    std::string device;
    std::uint64_t instance;
};
struct RoomMade {};  // the channels' has_room() is true again
struct Stalled {     // all are alive, work is due, and nothing has been finished for long
    std::string how;
};
}  // namespace portal_event
using PortalEvent =
    std::variant<portal_event::Joined, portal_event::Message, portal_event::Lost,
                 portal_event::Attached, portal_event::RoomMade, portal_event::Stalled, Delivery>;

}  // namespace ecopipe
