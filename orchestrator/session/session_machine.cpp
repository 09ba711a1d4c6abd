#include "orchestrator/session/session_machine.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/check.h"
#include "core/log.h"
#include "core/step_number.h"
#include "domain/plan_index.h"
#include "stage_runtime/stage/stage_machine.h"
#include "transport/data/data_plane.h"

namespace ecopipe {
namespace {
constexpr std::uint64_t kLostAfterIntervals = 4;
constexpr std::uint64_t kLostAfterSteps = 16;
}  // namespace

SessionOutcomes SessionMachine::on(const SessionEvent& event) {
    SessionOutcomes out;
    std::visit([&](const auto& e) { handle(e, out); }, event);
    return out;
}

void SessionMachine::handle(const session_event::BaseSet& event, SessionOutcomes& out) {
    if (event.only) {
        holdings_ = Holdings(holdings_.stateful_layers());
        live_.reset();
    }
    holdings_.set_base(event.step);
    if (phase_ == Phase::kIdle || event.only) {
        recovery_point_ = event.step;
        return;
    }
    advance_recovery_point(out);
}

bool SessionMachine::has_part(const std::string& device) const {
    return devices_.contains(device) || replicas_.keeps(device);
}

void SessionMachine::hold_plan(std::uint64_t step) {
    for (const std::string& device : index_.devices()) {
        if (!involved_.contains(device)) continue;
        for (const StageId stage : index_.stages_of(device)) {
            const LayerRange layers = index_.layers_of(stage);
            holdings_.stored(device, layers.first, layers.last, step);
        }
    }
}

void SessionMachine::handle(const session_event::ConfigureWanted& event, SessionOutcomes& out) {
    const bool between_steps =
        phase_ == Phase::kRunning && owe_done_.empty() && owe_committed_.empty();
    ECOPIPE_CHECK(phase_ == Phase::kIdle || phase_ == Phase::kBroken || between_steps);
    // Nobody was told to change what all have, so it still is there to start from.
    if (live_) hold_plan(*live_);
    live_.reset();
    restore_step_ = holdings_.newest_point(1);
    PlanIndex index(event.plan, flow_);
    const RestorePlan restore = plan_restore(holdings_, index, restore_step_);
    holdings_.rewound_to(restore_step_);
    index_ = std::move(index);
    replicas_ = event.replicas;
    ++generation_;
    devices_ = {index_.devices().begin(), index_.devices().end()};
    involved_.insert(devices_.begin(), devices_.end());
    for (const auto& [owner, buddy] : replicas_.buddies)
        if (buddy != kPortalPeer) involved_.insert(buddy);
    for (const auto& [giver, transfers] : restore.supply)
        if (giver != kPortalPeer) involved_.insert(giver);
    owe_ready_ = involved_;
    to_forget_.clear();
    owe_done_.clear();
    owe_committed_.clear();
    owe_fetched_.clear();
    snapshot_under_way_.reset();
    snapshot_at_once_ = true;
    recovery_point_ = restore_step_;
    phase_ = Phase::kConfiguring;
    const auto of = [](const auto& map, const std::string& device) {
        const auto found = map.find(device);
        return found == map.end() ? typename std::decay_t<decltype(map)>::mapped_type()
                                  : found->second;
    };
    std::map<std::string, std::set<std::string>> peers;
    const auto connect = [&](const std::string& a, const std::string& b) {
        if (a == b || a == kPortalPeer || b == kPortalPeer) return;
        peers[a].insert(b);
        peers[b].insert(a);
    };
    for (const std::string& device : devices_)
        for (const std::string& peer : index_.neighbours_of(device)) connect(device, peer);
    for (const auto& [giver, transfers] : restore.supply)
        for (const LayerTransfer& transfer : transfers) connect(giver, transfer.peer);
    for (const auto& [owner, buddy] : replicas_.buddies) connect(owner, buddy);
    for (const std::string& device : involved_)
        out.push_back(session_outcome::SendConfigure{device,
                                                     restore_step_,
                                                     of(restore.restore, device),
                                                     of(restore.supply, device),
                                                     replicas_.every > 0 && has_part(device),
                                                     of(replicas_.buddies, device),
                                                     {peers[device].begin(), peers[device].end()},
                                                     event.cause});
    if (auto supply = of(restore.supply, kPortalPeer); !supply.empty())
        out.push_back(session_outcome::SupplyFromPortal{restore_step_, std::move(supply)});
}

void SessionMachine::handle(const session_event::ReadyReceived& event, SessionOutcomes& out) {
    if (event.generation != generation_ || phase_ != Phase::kConfiguring) return;
    if (owe_ready_.erase(event.device) == 0 || !owe_ready_.empty()) return;
    phase_ = Phase::kRunning;
    ever_ready_ = true;
    live_ = restore_step_;
    if (replicas_.every > 0) {
        hold_plan(restore_step_);
    } else {
        holdings_.drop_before(restore_step_ + 1);  // nobody keeps anything but what it works on
    }
    // Who only gave has no part any more once it is told to forget; a device that leaves may go.
    std::erase_if(involved_, [&](const std::string& device) {
        if (has_part(device)) return false;
        to_forget_.insert(device);
        return true;
    });
    out.push_back(session_outcome::AllReady{restore_step_});
}

void SessionMachine::handle(const session_event::BeginWanted& event, SessionOutcomes& out) {
    if (phase_ != Phase::kRunning) return;
    ECOPIPE_CHECK(owe_done_.empty());
    begun_step_ = event.step;
    evaluating_ = event.evaluation;
    owe_done_ = devices_;
    done_.clear();
    holdings_.drop_before(recovery_point_);
    std::vector<std::string> told(involved_.begin(), involved_.end());
    for (const std::string& device : to_forget_) {
        holdings_.forget(device);
        told.push_back(device);
    }
    to_forget_.clear();
    out.push_back(
        session_outcome::SendBegin{std::move(told), event.step, event.evaluation, recovery_point_});
}

void SessionMachine::handle(const session_event::CommitWanted&, SessionOutcomes& out) {
    if (phase_ != Phase::kRunning) return;
    ECOPIPE_CHECK(owe_done_.empty() && owe_committed_.empty() && !evaluating_);
    committed_step_ = begun_step_;
    owe_committed_ = devices_;
    live_.reset();
    const std::uint64_t next = committed_step_ + 1;
    const bool due = snapshot_at_once_ || next >= last_snapshot_ + replicas_.every;
    // A replica that was lost on its way is not waited for: another snapshot takes its place.
    if (snapshot_under_way_ &&
        next >= *snapshot_under_way_ + kLostAfterIntervals * replicas_.every + kLostAfterSteps)
        snapshot_under_way_.reset();
    const bool snapshot = replicas_.every > 0 && !snapshot_under_way_ && due;
    if (snapshot) {
        snapshot_under_way_ = last_snapshot_ = next;
        snapshot_at_once_ = false;
    }
    out.push_back(
        session_outcome::SendCommit{{devices_.begin(), devices_.end()}, committed_step_, snapshot});
}

void SessionMachine::handle(const session_event::FetchWanted&, SessionOutcomes& out) {
    if (phase_ != Phase::kRunning) return;
    owe_fetched_ = devices_;
    fetched_tensors_ = 0;
    out.push_back(session_outcome::SendFetch{{devices_.begin(), devices_.end()}});
}

void SessionMachine::handle(const session_event::DoneReceived& event, SessionOutcomes& out) {
    if (event.generation != generation_ || event.step != begun_step_) return;
    if (phase_ != Phase::kRunning || owe_done_.erase(event.device) == 0) return;
    done_[event.device] = event.done;
    if (owe_done_.empty()) out.push_back(session_outcome::AllDone{event.step, std::move(done_)});
}

void SessionMachine::handle(const session_event::CommittedReceived& event, SessionOutcomes& out) {
    if (event.generation != generation_ || event.step != committed_step_) return;
    if (phase_ != Phase::kRunning || owe_committed_.erase(event.device) == 0) return;
    if (!owe_committed_.empty()) return;
    live_ = committed_step_ + 1;
    out.push_back(session_outcome::AllCommitted{event.step});
}

void SessionMachine::handle(const session_event::StoredReceived& event, SessionOutcomes& out) {
    if (event.generation != generation_ || phase_ != Phase::kRunning) return;
    if (!involved_.contains(event.device) && event.device != kPortalPeer) return;
    holdings_.stored(event.device, static_cast<int>(event.stored.first_layer),
                     static_cast<int>(event.stored.last_layer), event.step);
    advance_recovery_point(out);
}

void SessionMachine::advance_recovery_point(SessionOutcomes& out) {
    const std::uint64_t point = holdings_.newest_point(2);
    if (point <= recovery_point_) return;
    recovery_point_ = point;
    if (snapshot_under_way_ && *snapshot_under_way_ <= point) snapshot_under_way_.reset();
    out.push_back(session_outcome::RecoveryPoint{point});
}

void SessionMachine::handle(const session_event::FetchedReceived& event, SessionOutcomes& out) {
    if (event.generation != generation_ || phase_ != Phase::kRunning) return;
    if (owe_fetched_.erase(event.device) == 0) return;
    fetched_tensors_ += event.state_tensors;
    if (owe_fetched_.empty()) out.push_back(session_outcome::AllFetched{fetched_tensors_});
}

std::string SessionMachine::place_of(const std::string& device) const {
    const auto stages = index_.stages_of(device);
    return stages.empty() ? "device " + device
                          : fmt::format("device {} (stage {})", device, stages.front().value);
}

void SessionMachine::break_off(const std::string& device, Error error, SessionOutcomes& out) {
    phase_ = Phase::kBroken;
    owe_done_.clear();
    owe_committed_.clear();
    owe_ready_.clear();
    owe_fetched_.clear();
    out.push_back(session_outcome::Broken{device, std::move(error)});
}

void SessionMachine::handle(const session_event::DeviceJoined& event, SessionOutcomes&) {
    holdings_.forget(event.device);
}

void SessionMachine::handle(const session_event::DeviceFailed& event, SessionOutcomes& out) {
    holdings_.forget(event.device);
    const bool had_part = involved_.erase(event.device) > 0;
    Error error{event.code,
                fmt::format("{}, {}, micro-batch {}: {}", place_of(event.device),
                            step_text(event.step + 1), event.micro_batch, event.reason)};
    // A bad file or another version is the same wherever the layers go. So is a failure of the
    // computation that comes again at the same step on another device.
    const bool curable =
        event.code == ExitCode::kUnreachable ||
        (event.code == ExitCode::kRunFailed && failed_steps_.insert(event.step).second);
    if (!ever_ready_ || (!curable && had_part)) {
        out.push_back(session_outcome::Fatal{std::move(error)});
    } else if (devices_.contains(event.device) || phase_ == Phase::kConfiguring) {
        if (had_part && phase_ != Phase::kIdle) break_off(event.device, std::move(error), out);
    } else if (had_part) {
        out.push_back(session_outcome::ReplicasLost{event.device});
    }
}

void SessionMachine::handle(const session_event::DeviceLost& event, SessionOutcomes& out) {
    holdings_.forget(event.device);
    if (involved_.erase(event.device) == 0 || phase_ == Phase::kIdle) return;
    Error error{ExitCode::kUnreachable, fmt::format("{} was lost at {}: {}", place_of(event.device),
                                                    step_text(begun_step_ + 1), event.how)};
    if (devices_.contains(event.device) || phase_ == Phase::kConfiguring) {
        break_off(event.device, std::move(error), out);
    } else {
        snapshot_at_once_ = true;
        out.push_back(session_outcome::ReplicasLost{event.device});
    }
}

void SessionMachine::handle(const session_event::Stalled& event, SessionOutcomes& out) {
    if (phase_ != Phase::kRunning && phase_ != Phase::kConfiguring) return;
    break_off(
        "",
        {ExitCode::kUnreachable, fmt::format("{} stalled: waited in vain for {}, {}",
                                             step_text(begun_step_ + 1), waiting_for(), event.how)},
        out);
}

void SessionMachine::handle(const session_event::Unreachable& event, SessionOutcomes& out) {
    if (phase_ != Phase::kConfiguring) return;
    for (const std::string& device : event.left_out) {
        holdings_.forget(device);
        involved_.erase(device);
    }
    break_off("", {ExitCode::kUnreachable, event.how}, out);
}

std::string SessionMachine::waiting_for() const {
    const auto list = [](const std::set<std::string>& devices) {
        return fmt::format("{}", fmt::join(devices, ", "));
    };
    if (!owe_ready_.empty()) return list(owe_ready_) + " to be ready";
    if (!owe_committed_.empty())
        return fmt::format("{} to commit {}", list(owe_committed_), step_text(committed_step_ + 1));
    if (!owe_done_.empty())
        return fmt::format("{} to finish {}", list(owe_done_), step_text(begun_step_ + 1));
    if (!owe_fetched_.empty()) return list(owe_fetched_) + " to send its state";
    return "nothing";
}

}  // namespace ecopipe
