#pragma once
// A stage's end of the control connection: says Hello until it is welcomed, answers pings, notices
// silence. Pure: time is an argument, messages leave through ContactSide.

#include <atomic>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/result.h"
#include "transport/wire/codec.h"
#include "transport/wire/messages.h"

namespace ecopipe {

// What the compute thread is at; it writes, the network thread tells the portal.
struct ComputeActivity {
    std::atomic<std::uint64_t> progress{0};      // actions finished, chunks arrived
    std::atomic<std::int64_t> busy_since_ns{0};  // 0: waiting
    std::atomic<std::uint64_t> longest_ns{0};
    std::atomic<std::uint64_t> step{0};
    std::atomic<std::uint32_t> micro_batch{0};

    void begin(std::uint64_t at_step, std::uint32_t at_micro_batch, Instant now);
    void end(Instant now);
};

class ContactSide {
  public:
    ContactSide() = default;
    ContactSide(const ContactSide&) = delete;
    ContactSide& operator=(const ContactSide&) = delete;
    virtual ~ContactSide() = default;

    // Lost when there is no connection.
    virtual void send(const FrameHeader& header, const std::string& body) = 0;
    // All that the portal says, but what this class answers itself.
    virtual void hand_over(const FrameHeader& header, std::vector<std::byte> body) = 0;
    // Whom the portal vouches for.
    virtual void introduce(const Introduce& known) = 0;
    // Once: silence, or what lose() was told.
    virtual void portal_lost(Error error) = 0;
};

// One thread.
class PortalContact {
  public:
    // `activity` is told in every Pong.
    PortalContact(ContactSide& side, const ComputeActivity& activity)
        : side_(side), activity_(activity) {}

    // The portal at `portal` has been dialled. tick() is due at once.
    void begin(std::string portal, Hello hello, Instant now);
    // Says Hello, or looks for silence: when it is due next. What this process slept through does
    // not count.
    [[nodiscard]] Instant tick(Instant now);
    void heard(const FrameHeader& header, std::span<const std::byte> body, Instant now);
    void lose(Error error);
    // The run is filled in.
    template <class Message>
    void send(FrameHeader header, const Message& message);

  private:
    void answer(const Ping& ping, Instant now);

    ContactSide& side_;
    const ComputeActivity& activity_;
    std::string portal_;
    Hello hello_;
    std::uint64_t run_ = 0;
    bool welcomed_ = false;
    bool lost_ = false;
    Instant heard_{};
    Instant due_{};
    Duration silence_max_{};
    std::string body_;  // of the message being sent: its memory is used again
};

template <class Message>
void PortalContact::send(FrameHeader header, const Message& message) {
    header.run = run_;
    header.type = static_cast<std::uint16_t>(Message::kType);
    encode_into(message, body_);
    side_.send(header, body_);
}

}  // namespace ecopipe
