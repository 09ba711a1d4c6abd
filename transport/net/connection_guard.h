#pragma once
// Watches one socket's connections through ZeroMQ's monitor: keeps the limits of limits.h by
// shutting descriptors down (ZeroMQ has no call that drops a peer), cuts off revoked peers, and
// tells of handshakes that failed. Network thread only.

#include <functional>
#include <set>
#include <string>
#include <string_view>

#include "transport/net/connection_table.h"
#include "transport/net/net_loop.h"

namespace ecopipe {

// An IPv4 address as people write it, where a socket of both families has "::ffff:" before it.
[[nodiscard]] inline std::string_view plain_address(std::string_view address) {
    constexpr std::string_view kMapped = "::ffff:";
    return address.starts_with(kMapped) ? address.substr(kMapped.size()) : address;
}

enum class HandshakeFailure {
    kClosed,     // the other end closed, or spoke no ZeroMQ
    kMechanism,  // one end wants keys, the other has none
    kKey,        // the other end's key is not the expected one
    kRefused,    // the other end does not allow our key
};

class ConnectionGuard {
  public:
    // `name` is told in logs ("control port"). A dialling socket has no limits on connections, for
    // it chose its peer. `failed` is told each handshake that failed.
    ConnectionGuard(NetLoop& loop, zmq::socket_ref socket, std::string name, bool listening,
                    std::function<void(HandshakeFailure)> failed,
                    const ConnectionLimits& limits = {});
    ~ConnectionGuard();
    ConnectionGuard(const ConnectionGuard&) = delete;
    ConnectionGuard& operator=(const ConnectionGuard&) = delete;

    // Told of a dialling socket: true once it is connected, false at each attempt that failed.
    void on_connecting(std::function<void(bool connected)> told) { connecting_ = std::move(told); }

    void spoke(int descriptor, std::string_view user) { table_.spoke(descriptor, user); }
    // A connection that said what no peer of ours says.
    void drop(int descriptor, std::string_view why);
    void cut(const std::set<std::string>& users);

  private:
    void read_events();
    void on_event(int event, int value);
    void check_unfinished();
    // Shut down, not closed: ZeroMQ owns the descriptor and closes it when it reads the end. Only
    // if it still is a connection to `address`: the number may have been used again.
    void shut(int descriptor, const std::string& address);
    void tell(std::string_view address, std::string_view what);

    NetLoop& loop_;
    Lifeline lifeline_ = make_lifeline();
    zmq::socket_ref socket_;
    zmq::socket_t events_;
    std::string name_;
    bool listening_;
    std::function<void(HandshakeFailure)> failed_;
    std::function<void(bool)> connecting_;
    ConnectionTable table_;
    bool checking_ = false;
    std::string failure_;  // of the handshake whose connection is told to be closed next
};

}  // namespace ecopipe
