#pragma once
// A stage's control connection: dials the portal, says Hello until it is welcomed, answers pings,
// notices silence.

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "transport/net/message_socket.h"
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

class PortalLink {
  public:
    struct Callbacks {  // on the network thread
        std::function<void(const FrameHeader&, std::vector<std::byte> body)>
            on_message;                      // but Ping
        std::function<void(Error)> on_lost;  // once: silence, or another protocol
    };
    // `activity` is told in every Pong.
    PortalLink(NetLoop& loop, const ComputeActivity& activity, Callbacks callbacks);
    ~PortalLink();
    // Dials and keeps sending `hello` until Welcome. `peer`: whose key the portal's is, with keys.
    [[nodiscard]] Result<void> dial(const Endpoint& portal, const std::string& peer,
                                    const Hello& hello);
    void hang_up();

    // Any thread. The header's generation, step and micro-batch are kept; the run is filled in.
    template <class Message>
    void send(FrameHeader header, const Message& message) {
        loop_.post([this, header, message]() mutable {
            header.run = run_;
            if (socket_) static_cast<void>(socket_->send("", header, message));
        });
    }

  private:
    void say_hello(std::uint64_t attempt_of);
    // Meant to be called at `due`.
    void check_silence(std::uint64_t attempt_of, Instant due);
    void on_message(const Incoming& message);
    void lose(Error error);
    void introduce(const Incoming& message);

    NetLoop& loop_;
    Lifeline lifeline_ = make_lifeline();
    const ComputeActivity& activity_;
    Callbacks callbacks_;
    std::unique_ptr<MessageSocket> socket_;
    Endpoint portal_;
    Hello hello_;
    std::uint64_t attempt_ = 0;  // timers of an earlier connection do nothing
    std::uint64_t run_ = 0;
    bool welcomed_ = false;
    bool lost_ = false;
    Instant last_heard_{};
    Duration silence_max_{};
};

}  // namespace ecopipe
