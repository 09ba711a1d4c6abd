#pragma once
// Who has fallen silent. Pure: time is an argument.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/clock.h"

namespace ecopipe {

// Also estimates each device's clock against ours from the pings' round trips (Cristian,
// "Probabilistic clock synchronization", 1989): the sample with the shortest round trip counts.
class Liveness {
  public:
    explicit Liveness(Duration silence_max) : silence_max_(silence_max) {}

    void joined(const std::string& device, Instant now) { devices_[device].last_heard = now; }
    void left(const std::string& device) { devices_.erase(device); }
    void heard(const std::string& device, Instant now);
    // `sent` is when our ping left, `remote` the device's clock when it answered.
    void pong(const std::string& device, Instant sent, Instant now, std::int64_t remote_ns);

    // Devices silent for longer than the limit; each is reported once.
    [[nodiscard]] std::vector<std::string> silent(Instant now);
    // Add to a device's time to get ours, in nanoseconds.
    [[nodiscard]] std::int64_t clock_offset_ns(const std::string& device) const;

  private:
    struct State {
        Instant last_heard{};
        std::int64_t offset_ns = 0;
        Duration best_round_trip = Duration::max();
        bool reported = false;
    };
    Duration silence_max_;
    std::map<std::string, State> devices_;
};

}  // namespace ecopipe
