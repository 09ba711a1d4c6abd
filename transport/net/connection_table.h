#pragma once
// The connections of one socket: who may come, who has said something, who goes. Pure logic; the
// adapter to ZeroMQ's monitor is ConnectionGuard.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.h"
#include "transport/limits.h"

namespace ecopipe {

// `burst` at once, then `per_second`.
class TokenBucket {
  public:
    TokenBucket(double burst, double per_second)
        : burst_(burst), per_second_(per_second), tokens_(burst) {}
    [[nodiscard]] bool take(Instant now);
    [[nodiscard]] Instant last_taken() const { return last_; }

  private:
    double burst_;
    double per_second_;
    double tokens_;
    Instant last_{};
};

// Of one listening socket; what a server of many clusters sets otherwise is in its `limits:`.
struct ConnectionLimits {
    std::size_t connections = kConnectionsMax;
    std::size_t per_address = kConnectionsPerAddress;
    std::size_t silent = kSilentConnectionsMax;
    double burst = kHandshakeBurst;
    double per_second = kHandshakesPerSecond;
};

class ConnectionTable {
  public:
    explicit ConnectionTable(const ConnectionLimits& limits = {}) : limits_(limits) {}

    struct Rejection {
        int descriptor = -1;  // to be shut down
        std::string address;
        std::string why;
    };
    // A new connection. Returns what is to be shut down: it, or an older one that it pushes out.
    [[nodiscard]] std::optional<Rejection> accepted(int descriptor, const std::string& address,
                                                    Instant now);
    // Returns the address, "" when it is not known.
    std::string closed(int descriptor);
    // A whole message of ours came over it, from `user` ("" without keys).
    void spoke(int descriptor, std::string_view user);
    // Connections of a user whose key no longer counts, and those that have not said who they are.
    [[nodiscard]] std::vector<int> of(const std::string& user) const;
    // Checks one connection's received bytes, as the system counts them, against what its whole
    // messages account for; true when a message has grown beyond kUnfinishedBytesMax.
    [[nodiscard]] bool unfinished(int descriptor, std::uint64_t received_bytes);
    [[nodiscard]] std::vector<int> descriptors() const;
    [[nodiscard]] std::string address(int descriptor) const;
    [[nodiscard]] std::size_t size() const { return connections_.size(); }

  private:
    struct Connection {
        std::string address;
        std::string user;
        Instant since{};
        bool silent = true;
        bool heard = false;       // since the last check
        std::uint64_t known = 0;  // received bytes up to about the last whole message
    };
    // One of the silent connections that is to go: the oldest of the address that has most.
    [[nodiscard]] int most_crowding() const;
    bool take_token(const std::string& address, Instant now);

    ConnectionLimits limits_;
    std::map<int, Connection> connections_;
    std::map<std::string, std::size_t> count_;  // by address
    std::map<std::string, TokenBucket> rates_;  // by address
    std::size_t silent_ = 0;
};

}  // namespace ecopipe
