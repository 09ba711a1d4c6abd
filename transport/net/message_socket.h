#pragma once
// One ZeroMQ socket that speaks our frames: a ROUTER that many dial, or a DEALER that dials one.
// The only file besides net_loop that knows ZeroMQ's sockets. Every default that loses messages or
// hangs is set here.

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "core/result.h"
#include "transport/net/connection_guard.h"
#include "transport/net/net_loop.h"
#include "transport/security/endpoint.h"
#include "transport/wire/codec.h"

namespace ecopipe {

// A message as it arrived; views live during the call.
struct Incoming {
    // Who, for a ROUTER's answers; "" on a DEALER. Of one connection or the next of the same key:
    // nobody else can take it over.
    std::string_view from;
    const FrameHeader& header;
    std::span<const std::byte> body;
    std::span<const std::byte> payload;
    std::string_view address;  // the peer's IP address, "" if ZeroMQ does not tell
};

// Whether the sender of a message that came from `from` may say that it is `name`: always without
// keys, with them when its key is that name's, or this machine's own.
[[nodiscard]] bool speaks_for(std::string_view from, std::string_view name);
// The sender has this machine's own key.
[[nodiscard]] bool is_own(std::string_view from);

// Bytes to send without a copy: `owner` keeps them alive until ZeroMQ is done.
struct Payload {
    std::span<const std::byte> bytes;
    std::shared_ptr<void> owner;
};

class MessageSocket {
  public:
    using Handler = std::function<void(const Incoming&)>;
    // Frames that are no message of ours: the reason, and kMismatch for a peer of another protocol
    // or whose keys do not match. A listening socket tells kMismatch alone: it drops the others.
    using BadHandler = std::function<void(std::string_view from, const Error&)>;

    // Network thread only, as all of this class. `port` names it: "control", "data", "federation".
    // Errors: kUnreachable when the address cannot be bound.
    [[nodiscard]] static Result<std::unique_ptr<MessageSocket>> bind(
        NetLoop& loop, const Endpoint& endpoint, Handler handler, BadHandler bad,
        std::string_view port, const ConnectionLimits& limits = {});
    // `peer`: whose key the other end must have; without keys it only names it. Errors: kMismatch
    // when no key of that name is known.
    [[nodiscard]] static Result<std::unique_ptr<MessageSocket>> dial(NetLoop& loop,
                                                                     const Endpoint& endpoint,
                                                                     Handler handler,
                                                                     BadHandler bad,
                                                                     const std::string& peer);
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
    // The last `send` failed because the peer's connection is gone, not because it is slow. A
    // listening socket's only: one that dials does not give its peer up.
    [[nodiscard]] bool peer_gone() const { return peer_gone_; }
    [[nodiscard]] std::uint16_t port() const { return port_; }

  private:
    MessageSocket(NetLoop& loop, bool router, Handler handler, BadHandler bad);
    Result<void> use_keys(const std::string& port, const std::string& peer);
    Result<void> listen(const Endpoint& endpoint);
    bool listen_at(const std::string& address, bool needed);
    struct Target {
        std::string place;
        bool ipv6 = true;  // whether the name's IPv6 addresses are dialled first
    };
    [[nodiscard]] static std::vector<Target> targets_of(const Endpoint& endpoint);
    void take_turns();
    void connect();
    void watch(std::string_view name, const ConnectionLimits& limits = {});
    void read_some();
    void handle(std::string_view routing_id, std::span<zmq::message_t> frames, bool too_many);
    void on_handshake_failed(HandshakeFailure failure);
    void on_revoked(const std::set<std::string>& users);

    NetLoop& loop_;
    Lifeline lifeline_ = make_lifeline();
    bool router_;
    Handler handler_;
    BadHandler bad_;
    zmq::socket_t socket_;
    std::unique_ptr<ConnectionGuard> guard_;
    std::string peer_;             // that was dialled
    bool revoked_ = false;         // the dialled peer's key no longer counts
    bool connected_ = false;       // the dialled peer has said something
    bool reached_ = false;         // a connection to the dialled name stands
    bool turn_due_ = false;        // to dial the name's other kind of address
    std::vector<Target> targets_;  // the one being dialled first
    std::optional<Instant> failing_since_;
    std::string from_;  // of the message being handled: its memory is used again
    std::string body_;  // of the message being sent: its memory is used again
    bool peer_gone_ = false;
    std::uint64_t sequence_ = 0;
    std::uint16_t port_ = 0;
};

}  // namespace ecopipe
