#pragma once
// Who may have a name that is taken: a client that was killed and started again comes back as
// another process before anybody has noticed that the first is gone. Pure.

#include <cstdint>
#include <map>
#include <string>

#include "core/clock.h"

namespace ecopipe {

class ClusterClaims {
  public:
    // `silence_max`: a process that has said nothing for so long is gone.
    explicit ClusterClaims(Duration silence_max) : silence_max_(silence_max) {}

    enum class Answer {
        kWait,    // the one before may be gone: whoever it was is given up after the silence
        kRefuse,  // the one before has been heard for longer than that since: it is alive
    };
    // A Hello of process `instance` under `name`, which another process has that was last heard at
    // `holder_heard`.
    [[nodiscard]] Answer claim(const std::string& name, std::uint64_t instance, Instant now,
                               Instant holder_heard);
    // The name has changed hands, or its holder has left.
    void settle(const std::string& name) { claims_.erase(name); }

  private:
    struct Claim {
        std::uint64_t instance = 0;
        Instant since{};
        Instant last{};
    };
    Duration silence_max_;
    std::map<std::string, Claim> claims_;  // the newest claimant of each name that is held
};

}  // namespace ecopipe
