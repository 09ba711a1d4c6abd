#include "fl_server/round_machine.h"

namespace ecopipe {

void RoundMachine::open_if_enough(Instant now, RoundActions& actions) {
    if (phase_ != Phase::kWaiting || connected_.size() < rules_.min_clusters) return;
    phase_ = Phase::kOpen;
    deadline_ = now + rules_.round_timeout;
    participants_ = owe_ = connected_;
    admitted_.clear();
    rejected_.clear();
    for (const std::string& cluster : participants_)
        actions.push_back(round_action::SendTask{cluster, round_});
}

void RoundMachine::close_if_answered(bool deadline_passed, RoundActions& actions) {
    if (phase_ != Phase::kOpen || (!owe_.empty() && !deadline_passed)) return;
    for (const std::string& cluster : owe_)
        rejected_.emplace(cluster, "no update before the round's deadline");
    owe_.clear();
    if (admitted_.empty()) {
        phase_ = Phase::kWaiting;  // nothing to aggregate: the round opens again
        return;
    }
    phase_ = Phase::kAggregating;
    actions.push_back(round_action::Aggregate{round_, rejected_});
}

RoundActions RoundMachine::on(Instant now, const RoundEvent& event) {
    RoundActions actions;
    if (phase_ == Phase::kFinished) return actions;
    if (const auto* connected = std::get_if<round_event::Connected>(&event)) {
        connected_.insert(connected->cluster);
        // One that comes back in the middle of its round gets its task again.
        if (owe_.contains(connected->cluster))
            actions.push_back(round_action::SendTask{connected->cluster, round_});
    } else if (const auto* gone = std::get_if<round_event::Disconnected>(&event)) {
        connected_.erase(gone->cluster);
    } else if (const auto* admitted = std::get_if<round_event::UpdateAdmitted>(&event)) {
        if (owe_.erase(admitted->cluster) > 0) admitted_.insert(admitted->cluster);
    } else if (const auto* rejected = std::get_if<round_event::UpdateRejected>(&event)) {
        if (owe_.erase(rejected->cluster) > 0) rejected_[rejected->cluster] = rejected->reason;
    } else if (std::holds_alternative<round_event::Aggregated>(event) &&
               phase_ == Phase::kAggregating) {
        phase_ = Phase::kWaiting;
        if (round_ == rules_.rounds) {
            phase_ = Phase::kFinished;
            actions.push_back(round_action::Finish{});
            return actions;
        }
        ++round_;
    }
    close_if_answered(phase_ == Phase::kOpen && now >= deadline_, actions);
    open_if_enough(now, actions);
    return actions;
}

}  // namespace ecopipe
