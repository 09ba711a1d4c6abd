#pragma once
// A client written to hurt: mutated, truncated, oversized, reordered and replayed messages, raw
// bytes and messages that never end.

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "transport/security/key_ring.h"
#include "transport/wire/frame.h"

namespace ecopipe::test {

struct HostileKeys {
    const KeyPair* own;  // whose
    PublicKey server;    // that it expects of the other end
};

class Hostile {
  public:
    // `keys`: null for a peer without any.
    Hostile(int port, std::uint64_t seed, const HostileKeys* keys = nullptr);
    // Connections of several hundred messages each, from changing loopback addresses. What is sent
    // first on each: `greeting`, already sealed; then messages of the run that the answer names.
    struct Greeting {
        FrameHeader header;
        std::string body;
        bool wait = false;  // for an answer, and take its run
    };
    void attack(std::uint64_t messages, const std::optional<Greeting>& greeting,
                std::uint64_t run = 0);
    // TCP without ZeroMQ: garbage, half handshakes, a message without end (without keys it is
    // taken up), silence.
    void attack_raw(int connections);
    [[nodiscard]] std::uint64_t sent() const { return sent_; }
    // Connections that came past the handshake.
    [[nodiscard]] std::uint64_t admitted() const { return admitted_; }
    [[nodiscard]] std::uint64_t run() const { return run_; }

  private:
    struct Seed {
        FrameHeader header;
        std::string body;
        std::string payload;
    };
    std::uint64_t below(std::uint64_t limit);
    Seed mutated();
    void connection(std::uint64_t messages, const std::optional<Greeting>& greeting);

    int port_;
    std::uint64_t state_;
    const HostileKeys* keys_;
    std::vector<Seed> seeds_;
    std::uint64_t sent_ = 0;
    std::uint64_t admitted_ = 0;
    std::uint64_t run_ = 0;
};

// The memory that a process holds now, in MiB.
[[nodiscard]] double resident_mib(int process);

}  // namespace ecopipe::test
