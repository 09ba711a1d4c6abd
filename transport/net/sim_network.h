#pragma once
// A virtual clock and a network between named nodes, in one thread: what the tests run whole
// clusters on. Every fault is drawn from one seed, so a run can be repeated exactly.
//
// It is harsher than TCP: single messages are lost and overtake each other, where a real network
// loses the whole connection.

#include <functional>
#include <map>
#include <queue>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/clock.h"
#include "core/random.h"
#include "transport/wire/frame.h"

namespace ecopipe {

struct SimFaults {
    double loss = 0;        // share of messages that vanish
    double corruption = 0;  // share whose header or body has a bit flipped
    double reordering = 0;  // share that may overtake what was sent before
    double straggling = 0;  // share that comes up to straggle_max late, overtaken by the rest
    Duration straggle_max = std::chrono::seconds(4);
    Duration delay_min = std::chrono::microseconds(100);
    Duration delay_max = std::chrono::milliseconds(3);
    double mbps = 0;  // of every link, for payloads; 0: they take no time
};

// One message as it was sealed. `connection` tells apart the sockets that a node has opened one
// after another, as a ROUTER's identities do.
struct SimMessage {
    std::string from;
    std::uint64_t connection = 0;
    std::string header;
    std::string body;
    std::string payload;
    // Checks and opens the frames as a socket does.
    [[nodiscard]] Result<FrameHeader> open() const;
};

// A message of that node, sealed.
[[nodiscard]] SimMessage sealed_message(std::string from, std::uint64_t connection,
                                        FrameHeader header, std::string body, std::string payload);

class SimNetwork {
  public:
    using Handler = std::function<void(const SimMessage&)>;
    explicit SimNetwork(std::uint64_t seed) : rng_(seed) {}

    [[nodiscard]] Instant now() const { return now_; }
    [[nodiscard]] Rng& rng() { return rng_; }
    SimFaults faults;

    // A process with this name starts; what was under way to an earlier one does not reach it.
    void start(const std::string& node, Handler handler);
    // It and its timers are gone. The other ends of its connections learn it, or, as when power
    // fails, do not.
    void crash(const std::string& node);
    // Its messages and timers wait until it wakes, as under SIGSTOP.
    void hang(const std::string& node);
    void wake(const std::string& node);
    [[nodiscard]] bool runs(const std::string& node) const { return nodes_.contains(node); }
    // The running node's control connection from now on; it hangs up the one before.
    void dial(const std::string& node, std::uint64_t connection);
    // As far as the other end, `seen_by`, knows.
    [[nodiscard]] bool is_open(const std::string& node, std::uint64_t connection,
                               const std::string& seen_by) const;
    // Nothing passes between the two until it is healed.
    void part(const std::string& a, const std::string& b) { parted_.insert(std::minmax(a, b)); }
    void heal() { parted_.clear(); }

    void send(const std::string& to, SimMessage message);
    // Runs `task` at `when`, if the process that set the timer still runs; "" is nobody's.
    void at(Instant when, const std::string& node, std::function<void()> task);
    // Nothing is due before `when`: it is then now.
    void idle_until(Instant when) { now_ = std::max(now_, when); }
    // Runs what is due next; false when nothing is left or it lies behind `end`.
    bool advance(Instant end);

  private:
    struct Node {
        Handler handler;
        std::uint64_t life = 0;
        std::uint64_t connection = 0;
        bool hangs = false;
        std::vector<std::function<void()>> waiting;  // for it to wake
    };
    struct Event {
        Instant when;
        std::uint64_t order;
        std::string node;
        std::uint64_t life;
        std::function<void()> task;
        bool operator<(const Event& other) const {  // the earliest on top
            return std::tie(when, order) > std::tie(other.when, other.order);
        }
    };
    void run_on(const std::string& node, std::uint64_t life, std::function<void()> task);
    [[nodiscard]] std::uint64_t life_of(const std::string& node) const;

    Instant now_{std::chrono::seconds(1)};
    Rng rng_;
    std::map<std::string, Node> nodes_;
    std::set<std::pair<std::string, std::uint64_t>> cut_;  // connections whose end nobody told
    std::uint64_t lives_ = 0;
    std::uint64_t order_ = 0;
    std::priority_queue<Event> events_;
    std::set<std::pair<std::string, std::string>> parted_;
    std::map<std::pair<std::string, std::string>, Instant> last_arrival_;
};

}  // namespace ecopipe
