#include "transport/net/message_socket.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "core/log.h"
#include "core/mutex.h"
#include "transport/limits.h"
#include "transport/net/zap_handler.h"
#include "transport/security/key_ring.h"

namespace ecopipe {
namespace {

constexpr int kLingerMs = 500;      // time for a last End or Failed to leave
constexpr int kReadsPerTurn = 64;   // so that one busy socket starves no other
constexpr int kHeartbeatMs = 2000;  // ZeroMQ's own, under ours: closes half-open connections
constexpr std::int64_t kDialFrameBytesMax = std::max(kPayloadBytesMax, kBodyBytesMax);
// ZMQ_ZAP_ENFORCE_DOMAIN, whose name libzmq 4.3.4 hides behind its draft switch; the option works.
constexpr int kZapEnforceDomain = 93;
// A server that knows us closes no handshake for this long; one that expects another key always.
constexpr auto kKeyPatience = std::chrono::seconds(5);
constexpr int kAnyPortAttempts = 20;     // to find a port that is free on all addresses of a name
constexpr int kConnectTimeoutMs = 3000;  // of one address of a name, before its next has its turn
constexpr auto kNextKindAfter = std::chrono::milliseconds(200);

// `from` as handlers see it: how the sender is authenticated, the size of the routing id, the
// routing id, the sender's name. The name in it keeps a peer from taking over another's routing id.
enum Trust : char { kOpen = 0, kKeyed = 1, kOwnKey = 2 };
constexpr std::size_t kFromPrefix = 2;

std::string_view routing_id_of(std::string_view from) {
    return from.substr(kFromPrefix, static_cast<unsigned char>(from[1]));
}

// Owners of the payloads under way. ZeroMQ gives a payload back on a thread of its own, maybe after
// the socket is gone: so there is one keeper a process, and it is never destroyed.
class OwnerKeeper {
  public:
    using Owner = std::shared_ptr<void>;
    Owner* keep(Owner owner) {
        const MutexLock lock(mutex_);
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
        Owner last;  // dies after the lock is gone
        const MutexLock lock(mutex_);
        last = std::move(*place);
        free_.push_back(place);
    }

  private:
    Mutex mutex_;
    std::vector<std::unique_ptr<Owner>> all_ ECOPIPE_GUARDED_BY(mutex_);
    std::vector<Owner*> free_ ECOPIPE_GUARDED_BY(mutex_);
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

std::string_view property(const zmq::message_t& frame, const char* name) {
    const char* value = zmq_msg_gets(frame.handle(), name);
    return value != nullptr ? value : "";
}

zmq::message_t bytes_message(const void* data, std::size_t size) {
    return zmq::message_t(data, size);
}

}  // namespace

bool speaks_for(std::string_view from, std::string_view name) {
    if (from.empty()) return true;  // a dialled peer was chosen by its key
    if (from[0] != kKeyed) return true;
    return from.substr(kFromPrefix + routing_id_of(from).size()) == name;
}

bool is_own(std::string_view from) { return !from.empty() && from[0] == kOwnKey; }

MessageSocket::MessageSocket(NetLoop& loop, bool router, Handler handler, BadHandler bad)
    : loop_(loop),
      router_(router),
      handler_(std::move(handler)),
      bad_(std::move(bad)),
      socket_(loop.context(), router ? zmq::socket_type::router : zmq::socket_type::dealer) {
    socket_.set(zmq::sockopt::linger, kLingerMs);
    socket_.set(zmq::sockopt::sndhwm, kSendQueueMessages);
    socket_.set(zmq::sockopt::rcvhwm, kReceiveQueueMessages);
    socket_.set(zmq::sockopt::maxmsgsize,
                router ? static_cast<std::int64_t>(kListenFrameBytesMax) : kDialFrameBytesMax);
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

// What ZeroMQ is told to dial. localhost is loopback of both kinds, whatever the resolver says.
std::vector<MessageSocket::Target> MessageSocket::targets_of(const Endpoint& endpoint) {
    if (!endpoint.named()) return {{endpoint.text(), true}};
    if (!endpoint.loopback()) return {{endpoint.text(), true}, {endpoint.text(), false}};
    return {{Endpoint{"127.0.0.1", endpoint.port}.text(), true},
            {Endpoint{"::1", endpoint.port}.text(), true}};
}

MessageSocket::~MessageSocket() {
    loop_.forget_revoked(this);
    loop_.unwatch(socket_);
}

Result<void> MessageSocket::use_keys(const std::string& port, const std::string& peer) {
    KeyRing* keys = loop_.keys();
    if (keys == nullptr) return {};
    const auto bytes = [](const auto& key) { return zmq::const_buffer(key.data(), key.size()); };
    socket_.set(zmq::sockopt::curve_publickey, bytes(keys->own().public_key.bytes));
    socket_.set(zmq::sockopt::curve_secretkey, bytes(keys->own().secret_key.bytes()));
    if (router_) {
        socket_.set(zmq::sockopt::curve_server, true);
        socket_.set(zmq::sockopt::zap_domain, port);
        const int on = 1;
        if (zmq_setsockopt(socket_.handle(), kZapEnforceDomain, &on, sizeof on) != 0)
            return fail(ExitCode::kRunFailed,
                        "this libzmq cannot enforce that peers are authenticated");
        return {};
    }
    const auto key = keys->find(peer);
    if (!key)
        return fail(ExitCode::kMismatch,
                    fmt::format("{}/allowed has no key of {}", keys->directory(), printable(peer)));
    socket_.set(zmq::sockopt::curve_serverkey, bytes(key->bytes));
    return {};
}

void MessageSocket::watch(std::string_view name, const ConnectionLimits& limits) {
    guard_ = std::make_unique<ConnectionGuard>(
        loop_, socket_, std::string(name), router_,
        [this](HandshakeFailure failure) { on_handshake_failed(failure); }, limits);
    loop_.watch(socket_, [this] { read_some(); });
    loop_.on_revoked(this, [this](const auto& users) { on_revoked(users); });
}

Result<std::unique_ptr<MessageSocket>> MessageSocket::bind(NetLoop& loop, const Endpoint& endpoint,
                                                           Handler handler, BadHandler bad,
                                                           std::string_view port,
                                                           const ConnectionLimits& limits) {
    std::unique_ptr<MessageSocket> socket(
        new MessageSocket(loop, true, std::move(handler), std::move(bad)));
    try {
        ECOPIPE_RETURN_IF_ERROR(socket->use_keys(std::string(port), {}));
        socket->watch(fmt::format("{} port", port), limits);
        ECOPIPE_RETURN_IF_ERROR(socket->listen(endpoint));
    } catch (const zmq::error_t& error) {
        return fail(ExitCode::kUnreachable,
                    fmt::format("{}: cannot listen: {}", endpoint.text(), one_line(error.what())));
    }
    return socket;
}

// False for an address that this machine lacks, unless it is needed.
bool MessageSocket::listen_at(const std::string& address, bool needed) {
    std::string place = Endpoint{address, port_}.text();
    if (port_ == 0) place.back() = '*';
    try {
        socket_.bind(place);
    } catch (const zmq::error_t& error) {
        const bool lacking = error.num() == EADDRNOTAVAIL || error.num() == EAFNOSUPPORT;
        if (!lacking || needed) throw;
        return false;
    }
    return true;
}

// On every address of the host, at one port. A name may have addresses that this machine lacks (of
// the other family, of another network): one that it has is enough.
Result<void> MessageSocket::listen(const Endpoint& endpoint) {
    ECOPIPE_ASSIGN_OR_RETURN(const auto addresses, listen_addresses(endpoint.host));
    for (int attempt = 1;; ++attempt) {
        port_ = endpoint.port;
        std::vector<std::string> bound;
        try {
            for (const std::string& address : addresses) {
                if (!listen_at(address, bound.empty() && &address == &addresses.back())) continue;
                bound.push_back(socket_.get(zmq::sockopt::last_endpoint));
                ECOPIPE_ASSIGN_OR_RETURN(const Endpoint found,
                                         parse_endpoint(bound.back(), "bind"));
                port_ = found.port;
            }
            return {};
        } catch (const zmq::error_t&) {
            // The port that was free on the first address is another's on the next.
            if (endpoint.port != 0 || bound.empty() || attempt == kAnyPortAttempts) throw;
            for (const std::string& place : bound) socket_.unbind(place);
        }
    }
}

Result<std::unique_ptr<MessageSocket>> MessageSocket::dial(NetLoop& loop, const Endpoint& endpoint,
                                                           Handler handler, BadHandler bad,
                                                           const std::string& peer) {
    std::unique_ptr<MessageSocket> socket(
        new MessageSocket(loop, false, std::move(handler), std::move(bad)));
    socket->peer_ = peer;
    try {
        ECOPIPE_RETURN_IF_ERROR(socket->use_keys({}, peer));
        socket->watch(fmt::format("connection to {}", endpoint.text()));
        socket->targets_ = targets_of(endpoint);
        if (socket->targets_.size() > 1) socket->take_turns();
        socket->connect();
    } catch (const zmq::error_t& error) {
        return fail(ExitCode::kUnreachable,
                    fmt::format("{}: cannot dial: {}", endpoint.text(), one_line(error.what())));
    }
    return socket;
}

// ZeroMQ dials the first address of a name, IPv6 before IPv4, and that one again and again. Whoever
// listens may do so on the other kind alone (localhost most of all): so the kinds take turns.
void MessageSocket::take_turns() {
    socket_.set(zmq::sockopt::connect_timeout, kConnectTimeoutMs);
    guard_->on_connecting([this](bool connected) {
        reached_ = connected;
        if (connected || turn_due_) return;
        turn_due_ = true;
        loop_.at(monotonic_now() + kNextKindAfter, lifeline_, [this] {
            turn_due_ = false;
            if (reached_) return;
            try {
                socket_.disconnect(targets_.front().place);
                std::rotate(targets_.begin(), targets_.begin() + 1, targets_.end());
                connect();
            } catch (const zmq::error_t& error) {
                log_debug("{}: cannot dial: {}", targets_.front().place, one_line(error.what()));
            }
        });
    });
}

void MessageSocket::connect() {
    socket_.set(zmq::sockopt::ipv6, targets_.front().ipv6);
    socket_.connect(targets_.front().place);
}

void MessageSocket::on_handshake_failed(HandshakeFailure failure) {
    if (router_) return;  // the guard has told who tried
    const auto tell = [this](std::string what) {
        bad_("", Error{ExitCode::kMismatch, std::move(what)});
    };
    const bool keyed = loop_.keys() != nullptr;
    switch (failure) {
        case HandshakeFailure::kRefused:
            tell(
                fmt::format("does not allow this machine's key {}: copy {}/own.public there, as "
                            "allowed/{}.public",
                            loop_.keys()->own_fingerprint(), loop_.keys()->directory(),
                            loop_.keys()->own().name));
            break;
        case HandshakeFailure::kMechanism:
            tell(keyed ? "talks without keys, this program with them"
                       : "wants keys: give --keys DIR");
            break;
        case HandshakeFailure::kKey:
        case HandshakeFailure::kClosed: {
            if (!keyed || connected_) break;
            const Instant now = monotonic_now();
            if (!failing_since_) failing_since_ = now;
            if (now - *failing_since_ < kKeyPatience) break;
            failing_since_.reset();
            tell(fmt::format("refuses every handshake: its key is not that of {} in {}/allowed",
                             printable(peer_), loop_.keys()->directory()));
            break;
        }
    }
}

void MessageSocket::on_revoked(const std::set<std::string>& users) {
    if (router_) {
        guard_->cut(users);
    } else if (users.contains(peer_)) {
        revoked_ = true;
        guard_->cut({peer_});
        bad_("", Error{ExitCode::kMismatch,
                       fmt::format("the key of {} is no longer allowed", printable(peer_))});
    }
}

bool MessageSocket::send(std::string_view to, FrameHeader header, const std::string& body,
                         Payload payload) {
    peer_gone_ = false;
    if (revoked_) return false;
    if (router_) to = routing_id_of(to);
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
    } catch (const zmq::error_t& error) {
        peer_gone_ = error.num() == EHOSTUNREACH;
        return false;
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
                log_debug("receive: {}", one_line(error.what()));
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
        std::string_view routing_id;
        if (router_) {
            routing_id = {static_cast<const char*>(parts[0].data()), parts[0].size()};
            parts = parts.subspan(1);
        }
        if (!revoked_ && !parts.empty()) handle(routing_id, parts, too_many);
    }
}

void MessageSocket::handle(std::string_view routing_id, std::span<zmq::message_t> frames,
                           bool too_many) {
    const int descriptor = zmq_msg_get(frames[0].handle(), ZMQ_SRCFD);
    std::string_view user;
    from_.clear();
    if (router_) {
        Trust trust = kOpen;
        if (KeyRing* keys = loop_.keys()) {
            user = property(frames[0], "User-Id");
            const std::string_view key = property(frames[0], kKeyProperty);
            if (!keys->admits(user, key)) {  // sent before its key was taken away
                guard_->drop(descriptor, "its key no longer counts");
                return;
            }
            trust = key == keys->own_fingerprint() ? kOwnKey : kKeyed;
        }
        from_ += trust;
        from_ += static_cast<char>(routing_id.size());
        from_ += routing_id;
        from_ += user;
    }
    std::array<std::span<const std::byte>, kFramesMax + 2> views;
    for (std::size_t i = 0; i < frames.size(); ++i)
        views[i] = {static_cast<const std::byte*>(frames[i].data()), frames[i].size()};
    const auto header = too_many
                            ? Result<FrameHeader>(fail(ExitCode::kRunFailed, "too many frames"))
                            : open_frames(std::span(views).first(frames.size()));
    if (!header) {
        if (!router_ || header.error().code == ExitCode::kMismatch)
            bad_(from_, header.error());
        else
            guard_->drop(descriptor, header.error().message);
        return;
    }
    connected_ = true;
    guard_->spoke(descriptor, user);
    const auto payload = frames.size() == kFramesMax ? views[2] : std::span<const std::byte>();
    handler_(
        {from_, *header, views[1], payload, plain_address(property(frames[0], "Peer-Address"))});
}

}  // namespace ecopipe
