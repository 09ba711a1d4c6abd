#pragma once
// Who is dead, hung or unreachable. Pure: time is an argument.
//
// The problem: all stages wait for one that is gone, and from here it looks like one that is only
// slow. One timeout for all is wrong twice. Short, it takes a device on a slow link for dead, and
// all go back for nothing. Long, every true death costs all of that time. So a device is measured
// against its own past. And hearing from it is not enough: its network thread answers pings while
// its computation hangs; and after a lost message all answer, and nothing moves.
//
// Hence three deadlines. Silence: no message for longer than the device's own rhythm allows, which
// is learnt from the gaps between its messages (mean plus eight mean deviations, as Jacobson's
// retransmission timer, "Congestion avoidance and control", 1988, but wider, since a false alarm
// costs a replay) and stays within [silence_min, silence_max]. Action: a compute thread that has
// been at one action for longer than a multiple of its longest one so far, though the network
// thread answers. Stall: nobody's compute thread finishes anything although work is due; that no
// single device is to blame for, so it is reported by itself.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/clock.h"

namespace ecopipe {

struct LivenessLimits {
    Duration silence_min = std::chrono::milliseconds(2000);
    Duration silence_max = std::chrono::seconds(5);
    Duration action_min = std::chrono::seconds(5);
    Duration action_unknown = std::chrono::seconds(120);  // while no action has finished yet
    double action_factor = 30;  // a first pass through new shapes takes many times the usual
    Duration stall_min = std::chrono::seconds(30);
};

// What a device's answer to a ping says of its compute thread.
struct Activity {
    std::uint64_t progress = 0;  // of anything: actions, and bytes of tensors that arrive
    Duration busy{};             // how long the action at hand has been computing; 0: it waits
    Duration longest{};          // the longest finished action
    std::uint64_t step = 0;
    std::uint32_t micro_batch = 0;
};

struct Suspect {
    std::string device;
    std::string how;  // for people, with numbers
};

// Also estimates each device's clock against ours from the pings' round trips (Cristian,
// "Probabilistic clock synchronization", 1989): the sample with the shortest round trip counts.
class Liveness {
  public:
    explicit Liveness(LivenessLimits limits) : limits_(limits) {}

    void joined(const std::string& device, Instant now);
    void left(const std::string& device) { devices_.erase(device); }
    void heard(const std::string& device, Instant now);
    // `sent` is when our ping left, `remote_ns` the device's clock when it answered.
    void pong(const std::string& device, Instant sent, Instant now, std::int64_t remote_ns,
              const Activity& activity);

    // Whoever calls did not run for so long: that counts for nobody.
    void observer_was_away(Instant now, Duration away);
    // Bytes of a tensor have come here: nothing has stalled.
    void progressed(Instant now) { last_progress_ = now; }
    // Devices past a deadline; each is reported once.
    [[nodiscard]] std::vector<Suspect> suspects(Instant now);
    // Work is due from now on (a step or an evaluation has begun) or no more.
    void work_due(bool due, Instant now);
    // How long nothing has been finished although work is due, once that is past its deadline;
    // reported once.
    [[nodiscard]] std::optional<Duration> stalled(Instant now);

    [[nodiscard]] Duration silence_limit(const std::string& device) const;
    // Add to a device's time to get ours, in nanoseconds.
    [[nodiscard]] std::int64_t clock_offset_ns(const std::string& device) const;
    // What its compute thread was last known to be at, for people; "" before any answer.
    [[nodiscard]] std::string last_seen_at(const std::string& device) const;

  private:
    struct State {
        Instant last_heard{};
        double gap_mean_ns = 0;
        double gap_deviation_ns = 0;
        bool has_gap = false;
        std::int64_t offset_ns = 0;
        Duration best_round_trip = Duration::max();
        Activity activity;
        bool reported = false;
    };
    [[nodiscard]] Duration silence_limit(const State& state) const;
    [[nodiscard]] Duration action_limit(const State& state) const;

    LivenessLimits limits_;
    std::map<std::string, State> devices_;
    bool due_ = false;
    Instant last_progress_{};
};

}  // namespace ecopipe
