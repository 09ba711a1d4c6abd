#pragma once
// A stage's control connection: its contact with the portal (portal_contact.h) on a socket, this
// machine's clock and the network thread.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "stage_runtime/stage/portal_contact.h"
#include "transport/net/message_socket.h"

namespace ecopipe {

class PortalLink : private ContactSide {
  public:
    struct Callbacks {  // on the network thread
        std::function<void(const FrameHeader&, std::vector<std::byte> body)> on_message;
        std::function<void(Error)> on_lost;  // once: silence, or another protocol
    };
    PortalLink(NetLoop& loop, const ComputeActivity& activity, Callbacks callbacks);
    ~PortalLink() override;
    // Dials and keeps sending `hello` until Welcome. `peer`: whose key the portal's is, with keys.
    [[nodiscard]] Result<void> dial(const Endpoint& portal, const std::string& peer,
                                    const Hello& hello);
    void hang_up();

    // Any thread. The header's generation, step and micro-batch are kept; the run is filled in.
    template <class Message>
    void send(FrameHeader header, const Message& message) {
        loop_.post([this, header, message] { contact_.send(header, message); });
    }

  private:
    void tick(std::uint64_t attempt_of);

    void send(const FrameHeader& header, const std::string& body) override {
        if (socket_) static_cast<void>(socket_->send("", header, body));
    }
    void hand_over(const FrameHeader& header, std::vector<std::byte> body) override {
        callbacks_.on_message(header, std::move(body));
    }
    void introduce(const Introduce& known) override;
    void portal_lost(Error error) override { callbacks_.on_lost(std::move(error)); }

    NetLoop& loop_;
    Lifeline lifeline_ = make_lifeline();
    Callbacks callbacks_;
    PortalContact contact_;
    std::unique_ptr<MessageSocket> socket_;
    std::uint64_t attempt_ = 0;  // timers of an earlier connection do nothing
};

}  // namespace ecopipe
