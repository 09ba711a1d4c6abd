#pragma once
// Whom a device exchanges tensors with under its part of the plan: which channels stand, and what
// is waited for too long between Configure and Ready. Without threads or clocks; one thread.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/result.h"
#include "transport/data/tensor_channels.h"
#include "transport/wire/messages.h"

namespace ecopipe {

class StagePeers {
  public:
    // `data_port`: where others dial this device, for messages. `look` is called every `tick`.
    StagePeers(TensorChannels& channels, std::uint16_t data_port, Duration tick);
    void clear();

    void attached(const std::string& peer, std::uint64_t instance);
    [[nodiscard]] bool is_attached(const std::string& peer) const;
    // Whether there is a channel with the instance of a peer that the portal named.
    [[nodiscard]] bool stands(const std::string& peer) const;

    // Another plan: channels to these and the portal are kept, all others given up.
    void configure(std::vector<PeerAddress> peers, std::uint32_t generation, Instant now);
    [[nodiscard]] std::set<std::string> with_portal() const;
    // Of `with_portal`, those whose channel does not stand yet.
    [[nodiscard]] std::set<std::string> missing() const;
    // Those that this device is to dial. Errors: kBadFile or kUsage for an address.
    [[nodiscard]] Result<void> dial();
    void ready() { loading_.reset(); }

    // What is to be told of waiting from `configure` to `ready`, if anything.
    struct Overdue {
        std::vector<std::string> unreached;  // told once; else nothing has come for kLoadTimeout
        std::string problem;  // a device that cannot be reached, with its address and port, or ""
    };
    // `progress` rises with whatever of tensors arrives.
    [[nodiscard]] std::optional<Overdue> look(Instant now, std::uint64_t progress);

    static constexpr auto kLoadTimeout = std::chrono::seconds(20);  // without any progress
    static constexpr auto kReachWait = std::chrono::seconds(5);     // for channels

  private:
    struct Loading {
        Instant since;
        Instant moved;                          // something has come since
        std::optional<std::uint64_t> progress;  // as told last
        Instant look_due;
        bool told = false;
    };
    [[nodiscard]] std::vector<std::string> unreached() const;
    [[nodiscard]] std::string problem() const;

    TensorChannels& channels_;
    std::uint16_t data_port_;
    Duration tick_;
    std::vector<PeerAddress> peers_;
    std::map<std::string, std::uint64_t> attached_;  // channels that stand, and with which instance
    std::optional<Loading> loading_;
};

}  // namespace ecopipe
