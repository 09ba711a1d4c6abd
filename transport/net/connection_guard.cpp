#include "transport/net/connection_guard.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <linux/tcp.h>  // glibc's tcp_info lacks tcpi_bytes_received
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cstring>

#include "core/check.h"
#include "core/log.h"
#include "transport/net/stranger_log.h"

namespace ecopipe {
namespace {

constexpr int kEvents = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_CONNECTED | ZMQ_EVENT_CONNECT_RETRIED |
                        ZMQ_EVENT_CLOSED | ZMQ_EVENT_DISCONNECTED |
                        ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                        ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;

std::string text_of(const sockaddr_storage& address) {
    std::array<char, INET6_ADDRSTRLEN> text{};
    const void* bytes = nullptr;
    if (address.ss_family == AF_INET) {
        bytes = &reinterpret_cast<const sockaddr_in&>(address).sin_addr;
    } else if (address.ss_family == AF_INET6) {
        const in6_addr& v6 = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(&v6))
            return ::inet_ntop(AF_INET, &v6.s6_addr[12], text.data(), text.size());
        bytes = &v6;
    }
    if (bytes == nullptr ||
        ::inet_ntop(address.ss_family, bytes, text.data(), text.size()) == nullptr)
        return {};
    return text.data();
}

// The other end's address, "" when the descriptor is no TCP connection (any more).
std::string peer_of(int descriptor) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    if (::getpeername(descriptor, reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
    return text_of(address);
}

std::uint64_t received_bytes(int descriptor) {
    tcp_info info{};
    socklen_t length = sizeof info;
    if (::getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return 0;
    return length >= offsetof(tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received
               ? info.tcpi_bytes_received
               : 0;
}

}  // namespace

ConnectionGuard::ConnectionGuard(NetLoop& loop, zmq::socket_ref socket, std::string name,
                                 bool listening, std::function<void(HandshakeFailure)> failed,
                                 const ConnectionLimits& limits)
    : loop_(loop),
      socket_(socket),
      events_(loop.context(), zmq::socket_type::pair),
      name_(std::move(name)),
      listening_(listening),
      failed_(std::move(failed)),
      table_(limits) {
    // Never a name twice: ZeroMQ frees one some time after its socket was closed.
    static std::atomic<std::uint64_t> guards{0};
    const std::string channel = fmt::format("inproc://monitor-{}", ++guards);
    ECOPIPE_CHECK(zmq_socket_monitor(socket_.handle(), channel.c_str(), kEvents) == 0);
    events_.connect(channel);
    loop_.watch(events_, [this] { read_events(); });
}

ConnectionGuard::~ConnectionGuard() {
    loop_.unwatch(events_);
    zmq_socket_monitor(socket_.handle(), nullptr, 0);
}

void ConnectionGuard::read_events() {
    zmq::message_t event;
    zmq::message_t endpoint;
    while (events_.recv(event, zmq::recv_flags::dontwait)) {
        if (event.more()) static_cast<void>(events_.recv(endpoint, zmq::recv_flags::dontwait));
        std::uint16_t kind = 0;
        std::uint32_t value = 0;
        if (event.size() != sizeof kind + sizeof value) continue;
        std::memcpy(&kind, event.data(), sizeof kind);
        std::memcpy(&value, static_cast<const char*>(event.data()) + sizeof kind, sizeof value);
        on_event(kind, static_cast<int>(value));
    }
}

void ConnectionGuard::on_event(int event, int value) {
    const auto failed = [this](HandshakeFailure failure, std::string what) {
        failure_ = std::move(what);
        if (failed_) failed_(failure);
    };
    switch (event) {
        case ZMQ_EVENT_CONNECT_RETRIED:
            if (connecting_) connecting_(false);
            break;
        case ZMQ_EVENT_ACCEPTED:
        case ZMQ_EVENT_CONNECTED: {
            if (event == ZMQ_EVENT_CONNECTED && connecting_) connecting_(true);
            const std::string address = peer_of(value);
            if (address.empty()) return;  // gone by now
            const auto rejection = table_.accepted(value, address, monotonic_now());
            if (rejection && listening_) {
                tell(rejection->address, "dropped: " + rejection->why);
                shut(rejection->descriptor, rejection->address);
            }
            if (!checking_) {
                checking_ = true;
                check_unfinished();
            }
            break;
        }
        case ZMQ_EVENT_CLOSED:
        case ZMQ_EVENT_DISCONNECTED: {
            const std::string address = table_.closed(value);
            if (!failure_.empty() && listening_) tell(address, failure_);
            failure_.clear();
            break;
        }
        case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
            // The listening end has told which key, in its ZAP handler.
            if (listening_) break;
            failed(HandshakeFailure::kRefused, "refused our key");
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
            if (value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
                failed(HandshakeFailure::kMechanism,
                       loop_.keys() != nullptr ? "speaks without keys"
                                               : "speaks with keys, this program has none");
            else if (value == ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC ||
                     value == ZMQ_PROTOCOL_ERROR_ZMTP_KEY_EXCHANGE)
                failed(HandshakeFailure::kKey, "expects another key than this program's");
            else
                failed(HandshakeFailure::kClosed, "broke the handshake's rules");
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            failed(HandshakeFailure::kClosed, "left during the handshake");
            break;
        default:
            break;
    }
}

void ConnectionGuard::check_unfinished() {
    for (const int descriptor : table_.descriptors())
        if (table_.unfinished(descriptor, received_bytes(descriptor)))
            drop(descriptor, "its message does not end");
    checking_ = table_.size() > 0;
    if (checking_)
        loop_.at(monotonic_now() + kUnfinishedCheckEvery, lifeline_,
                 [this] { check_unfinished(); });
}

void ConnectionGuard::drop(int descriptor, std::string_view why) {
    const std::string address = table_.address(descriptor);
    if (address.empty()) return;
    tell(address, fmt::format("dropped: {}", why));
    shut(descriptor, address);
}

void ConnectionGuard::cut(const std::set<std::string>& users) {
    std::set<int> descriptors;
    for (const std::string& user : users)
        for (const int descriptor : table_.of(user)) descriptors.insert(descriptor);
    for (const int descriptor : descriptors) shut(descriptor, table_.address(descriptor));
}

void ConnectionGuard::shut(int descriptor, const std::string& address) {
    if (!address.empty() && peer_of(descriptor) == address) ::shutdown(descriptor, SHUT_RDWR);
}

void ConnectionGuard::tell(std::string_view address, std::string_view what) {
    loop_.strangers().tell(
        fmt::format("{}: {} {}", name_, address.empty() ? "an unknown address" : address, what));
}

}  // namespace ecopipe
