#include "transport/message_socket.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <mutex>
#include <vector>

#include "core/log.h"

namespace ecopipe {
namespace {

constexpr int kHighWaterMark = 1000;  // messages; data channels stay far below by credits
constexpr int kLingerMs = 500;        // time for a last End or Failed to leave
constexpr int kReadsPerTurn = 64;     // so that one busy socket starves no other
constexpr int kHeartbeatMs = 2000;    // ZeroMQ's own, under ours: closes half-open connections
constexpr int kHandshakeMs = 5000;
constexpr std::int64_t kFrameBytesMax =
    kPayloadBytesMax > kBodyBytesMax ? kPayloadBytesMax : kBodyBytesMax;

// Owners of the payloads under way. ZeroMQ gives a payload back on a thread of its own, maybe after
// the socket is gone: so there is one keeper a process, and it is never destroyed.
class OwnerKeeper {
  public:
    using Owner = std::shared_ptr<void>;
    Owner* keep(Owner owner) {
        const std::lock_guard lock(mutex_);
        if (free_.empty()) {
            all_.push_back(std::make_unique<Owner>());
            free_.reserve(all_.size());
            free_.push_back(all_.back().get());
        }
        Owner* place = free_.back();
        free_.pop_back();
        *place = std::move(owner);
        return place;
    }
    void release(Owner* place) {
        Owner last = std::move(*place);  // dies after the lock is gone
        const std::lock_guard lock(mutex_);
        free_.push_back(place);
    }

  private:
    std::mutex mutex_;
    std::vector<std::unique_ptr<Owner>> all_;
    std::vector<Owner*> free_;
};

OwnerKeeper& owner_keeper() {
    static auto* keeper = new OwnerKeeper;
    return *keeper;
}

void free_payload(void*, void* hint) {
    owner_keeper().release(static_cast<OwnerKeeper::Owner*>(hint));
}

zmq::message_t payload_message(Payload payload) {
    // ZeroMQ takes a C callback and a pointer: the owner waits in the keeper, so the buffer
    // outlives the send.
    auto* data = const_cast<std::byte*>(payload.bytes.data());
    return zmq::message_t(data, payload.bytes.size(), free_payload,
                          owner_keeper().keep(std::move(payload.owner)));
}

std::string_view peer_address(const zmq::message_t& frame) {
    const char* address = zmq_msg_gets(frame.handle(), "Peer-Address");
    return address != nullptr ? address : "";
}

zmq::message_t bytes_message(const void* data, std::size_t size) {
    return zmq::message_t(data, size);
}

}  // namespace

MessageSocket::MessageSocket(NetLoop& loop, bool router, Handler handler, BadHandler bad)
    : loop_(loop),
      router_(router),
      handler_(std::move(handler)),
      bad_(std::move(bad)),
      socket_(loop.context(), router ? zmq::socket_type::router : zmq::socket_type::dealer) {
    socket_.set(zmq::sockopt::linger, kLingerMs);
    socket_.set(zmq::sockopt::sndhwm, kHighWaterMark);
    socket_.set(zmq::sockopt::rcvhwm, kHighWaterMark);
    socket_.set(zmq::sockopt::maxmsgsize, kFrameBytesMax);
    socket_.set(zmq::sockopt::heartbeat_ivl, kHeartbeatMs);
    socket_.set(zmq::sockopt::heartbeat_timeout, 5 * kHeartbeatMs);
    socket_.set(zmq::sockopt::handshake_ivl, kHandshakeMs);
    socket_.set(zmq::sockopt::ipv6, true);
    socket_.set(zmq::sockopt::reconnect_ivl, 50);
    socket_.set(zmq::sockopt::reconnect_ivl_max, 2000);
    if (router) {
        socket_.set(zmq::sockopt::router_mandatory, true);
    } else {
        socket_.set(zmq::sockopt::immediate, true);
    }
}

MessageSocket::~MessageSocket() { loop_.unwatch(socket_); }

Result<std::unique_ptr<MessageSocket>> MessageSocket::bind(NetLoop& loop, const Endpoint& endpoint,
                                                           Handler handler, BadHandler bad) {
    std::unique_ptr<MessageSocket> socket(
        new MessageSocket(loop, true, std::move(handler), std::move(bad)));
    try {
        const std::string wanted =
            endpoint.port == 0 ? fmt::format("tcp://{}:*", endpoint.host) : endpoint.text();
        socket->socket_.bind(wanted);
        const auto bound = parse_endpoint(socket->socket_.get(zmq::sockopt::last_endpoint), "bind");
        if (!bound) return fail_in(endpoint.text(), bound.error());
        socket->port_ = bound->port;
    } catch (const zmq::error_t& error) {
        return fail(ExitCode::kUnreachable,
                    fmt::format("{}: cannot listen: {}", endpoint.text(), error.what()));
    }
    MessageSocket* raw = socket.get();
    loop.watch(raw->socket_, [raw] { raw->read_some(); });
    return socket;
}

Result<std::unique_ptr<MessageSocket>> MessageSocket::dial(NetLoop& loop, const Endpoint& endpoint,
                                                           Handler handler, BadHandler bad) {
    std::unique_ptr<MessageSocket> socket(
        new MessageSocket(loop, false, std::move(handler), std::move(bad)));
    try {
        socket->socket_.connect(endpoint.text());
    } catch (const zmq::error_t& error) {
        return fail(ExitCode::kUnreachable,
                    fmt::format("{}: cannot dial: {}", endpoint.text(), error.what()));
    }
    MessageSocket* raw = socket.get();
    loop.watch(raw->socket_, [raw] { raw->read_some(); });
    return socket;
}

bool MessageSocket::send(std::string_view to, FrameHeader header, const std::string& body,
                         Payload payload) {
    header.sequence = sequence_;
    const bool has_payload = payload.bytes.data() != nullptr;
    const auto sealed = seal(header, body, has_payload ? payload.bytes.size() : 0);
    try {
        const auto more = zmq::send_flags::sndmore | zmq::send_flags::dontwait;
        if (router_ && !socket_.send(bytes_message(to.data(), to.size()), more)) return false;
        if (!socket_.send(bytes_message(sealed.data(), sealed.size()), more)) return false;
        const auto last = zmq::send_flags::dontwait;
        if (!socket_.send(bytes_message(body.data(), body.size()), has_payload ? more : last))
            return false;
        if (has_payload && !socket_.send(payload_message(std::move(payload)), last)) return false;
    } catch (const zmq::error_t&) {
        return false;  // host unreachable: the peer is gone
    }
    ++sequence_;
    return true;
}

void MessageSocket::read_some() {
    // [identity,] header, body, payload: one more than the most a message may have, to notice
    // excess.
    std::array<zmq::message_t, kFramesMax + 2> frames;
    for (int reads = 0; reads < kReadsPerTurn; ++reads) {
        std::size_t count = 0;
        bool more = true;
        bool too_many = false;
        while (more) {
            zmq::message_t frame;
            try {
                if (!socket_.recv(frame, zmq::recv_flags::dontwait)) return;
            } catch (const zmq::error_t& error) {
                log_debug("receive: {}", error.what());
                return;
            }
            more = frame.more();
            if (count < frames.size()) {
                frames[count++] = std::move(frame);
            } else {
                too_many = true;
            }
        }
        std::span<zmq::message_t> parts(frames.data(), count);
        std::string_view from;
        if (router_) {
            from = {static_cast<const char*>(parts[0].data()), parts[0].size()};
            parts = parts.subspan(1);
        }
        handle(from, parts, too_many);
    }
}

void MessageSocket::handle(std::string_view from, std::span<zmq::message_t> frames, bool too_many) {
    std::array<std::span<const std::byte>, kFramesMax + 2> views;
    for (std::size_t i = 0; i < frames.size(); ++i)
        views[i] = {static_cast<const std::byte*>(frames[i].data()), frames[i].size()};
    const auto header = too_many
                            ? Result<FrameHeader>(fail(ExitCode::kRunFailed, "too many frames"))
                            : open_frames(std::span(views).first(frames.size()));
    if (!header) {
        bad_(from, header.error());
        return;
    }
    const auto payload = frames.size() == kFramesMax ? views[2] : std::span<const std::byte>();
    handler_({from, *header, views[1], payload, peer_address(frames[0])});
}

}  // namespace ecopipe
