#pragma once
// One ZeroMQ socket that speaks our frames: a ROUTER that many dial, or a DEALER that dials one.
// The only file besides net_loop that knows ZeroMQ's sockets. Every default that loses messages or
// hangs is set here.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/result.h"
#include "transport/codec.h"
#include "transport/endpoint.h"
#include "transport/net_loop.h"

namespace ecopipe {

// A message as it arrived; views live during the call.
struct Incoming {
    std::string_view from;  // who, for a ROUTER's answers; "" on a DEALER
    const FrameHeader& header;
    std::span<const std::byte> body;
    std::span<const std::byte> payload;
    std::string_view address;  // the peer's IP address, "" if ZeroMQ does not tell
};

// Bytes to send without a copy: `owner` keeps them alive until ZeroMQ is done.
struct Payload {
    std::span<const std::byte> bytes;
    std::shared_ptr<void> owner;
};

class MessageSocket {
  public:
    using Handler = std::function<void(const Incoming&)>;
    // Frames that are no message of ours: the reason, and kMismatch for a peer of another protocol.
    using BadHandler = std::function<void(std::string_view from, const Error&)>;

    // Network thread only, as all of this class. Errors: kUnreachable when the address cannot be
    // bound.
    [[nodiscard]] static Result<std::unique_ptr<MessageSocket>> bind(NetLoop& loop,
                                                                     const Endpoint& endpoint,
                                                                     Handler handler,
                                                                     BadHandler bad);
    [[nodiscard]] static Result<std::unique_ptr<MessageSocket>> dial(NetLoop& loop,
                                                                     const Endpoint& endpoint,
                                                                     Handler handler,
                                                                     BadHandler bad);
    ~MessageSocket();
    MessageSocket(const MessageSocket&) = delete;
    MessageSocket& operator=(const MessageSocket&) = delete;

    // False when the message cannot be queued now (no connection, or the peer is slow): nothing was
    // sent.
    [[nodiscard]] bool send(std::string_view to, FrameHeader header, const std::string& body,
                            Payload payload = {});
    template <class Message>
    [[nodiscard]] bool send(std::string_view to, FrameHeader header, const Message& message,
                            Payload payload = {}) {
        header.type = static_cast<std::uint16_t>(Message::kType);
        encode_into(message, body_);
        return send(to, header, body_, std::move(payload));
    }
    [[nodiscard]] std::uint16_t port() const { return port_; }

  private:
    MessageSocket(NetLoop& loop, bool router, Handler handler, BadHandler bad);
    void read_some();
    void handle(std::string_view from, std::span<zmq::message_t> frames, bool too_many);

    NetLoop& loop_;
    bool router_;
    Handler handler_;
    BadHandler bad_;
    zmq::socket_t socket_;
    std::string body_;  // of the message being sent: its memory is used again
    std::uint64_t sequence_ = 0;
    std::uint16_t port_ = 0;
};

}  // namespace ecopipe
