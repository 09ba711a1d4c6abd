#pragma once
// The rounds of a synchronous federation, as a state machine without sockets, files or clocks:
// `actions = machine.on(now, event)`.
//
//   waiting --min_clusters connected--> open --every participant answered, or the deadline-->
//   aggregating --> waiting ...
//
// A round whose deadline passes without any admitted update is opened again for whoever is
// connected then.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "core/clock.h"

namespace ecopipe {

struct RoundRules {
    std::uint64_t rounds = 1;
    std::size_t min_clusters = 2;
    Duration round_timeout = std::chrono::seconds(600);
};

namespace round_event {
struct Connected {
    std::string cluster;
};
struct Disconnected {
    std::string cluster;
};
struct UpdateAdmitted {
    std::string cluster;
};
struct UpdateRejected {
    std::string cluster;
    std::string reason;
};
struct Aggregated {};
struct Tick {};
}  // namespace round_event
using RoundEvent =
    std::variant<round_event::Connected, round_event::Disconnected, round_event::UpdateAdmitted,
                 round_event::UpdateRejected, round_event::Aggregated, round_event::Tick>;

namespace round_action {
struct SendTask {
    std::string cluster;
    std::uint64_t round;
};
struct Aggregate {
    std::uint64_t round;
    std::map<std::string, std::string>
        rejected;  // cluster to reason, those that did not answer included
};
struct Finish {};
}  // namespace round_action
using RoundAction =
    std::variant<round_action::SendTask, round_action::Aggregate, round_action::Finish>;
using RoundActions = std::vector<RoundAction>;

class RoundMachine {
  public:
    explicit RoundMachine(RoundRules rules) : rules_(rules) {}
    [[nodiscard]] RoundActions on(Instant now, const RoundEvent& event);

    [[nodiscard]] std::uint64_t round() const {
        return round_;
    }  // the one under way or next, from 1
    [[nodiscard]] bool expects_update_of(const std::string& cluster) const {
        return owe_.contains(cluster);
    }
    [[nodiscard]] std::size_t connected() const { return connected_.size(); }

  private:
    enum class Phase { kWaiting, kOpen, kAggregating, kFinished };
    void open_if_enough(Instant now, RoundActions& actions);
    void close_if_answered(bool deadline_passed, RoundActions& actions);

    RoundRules rules_;
    Phase phase_ = Phase::kWaiting;
    std::uint64_t round_ = 1;
    Instant deadline_{};
    std::set<std::string> connected_;
    std::set<std::string> participants_;
    std::set<std::string> owe_;
    std::set<std::string> admitted_;
    std::map<std::string, std::string> rejected_;
};

}  // namespace ecopipe
