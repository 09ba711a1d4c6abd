#include "stage_runtime/stage/stage_machine.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

namespace ecopipe {
namespace {

bool is_of(const TensorAddress& address, const AwaitedValue& value) {
    const bool input = address.kind == TensorKind::kInput || address.kind == TensorKind::kEvalInput;
    return input == (value.producer < 0) &&
           address.producer == static_cast<std::uint32_t>(std::max(0, value.producer)) &&
           (!value.output || address.output == *value.output);
}

}  // namespace

AwaitedTies awaited_ties(const PlanIndex& plan, const std::string& device) {
    const auto here = [&](StageId stage) {
        const auto devices = plan.devices_of(stage);
        return std::find(devices.begin(), devices.end(), device) != devices.end();
    };
    AwaitedTies ties;
    for (const TieWay& tie : plan.ties()) {
        if (here(tie.home)) ties.gradients.push_back(tie);
        if (here(tie.user) &&
            std::none_of(ties.weights.begin(), ties.weights.end(),
                         [&](const TieWay& other) { return other.use.name == tie.use.name; }))
            ties.weights.push_back(tie);
    }
    ties.sends = !ties.gradients.empty() || !ties.weights.empty();
    return ties;
}

std::vector<SliceRole> slice_roles(const PlanIndex& plan, const ValueGraph& flow,
                                   const std::string& device) {
    const auto awaited = [&](const ValueWay& way, bool gradient) {
        const ModelValue& facts = flow.values()[static_cast<std::size_t>(way.value)];
        AwaitedValue value;
        value.producer = facts.producer;
        if (!flow.is_chain()) value.output = facts.output;
        value.from = kPortalPeer;
        if (way.stage)
            value.from = fmt::format("{}", fmt::join(plan.devices_of(*way.stage), " or "));
        if (gradient && !flow.is_chain()) value.user = way.stage;
        return value;
    };
    std::vector<SliceRole> roles;
    std::map<int, AwaitedValue*> newest;  // by value
    const auto stages = plan.stages_of(device);
    roles.reserve(stages.size());
    for (const StageId stage : stages) {
        const StageWays& ways = plan.ways_of(stage);
        SliceRole& role = roles.emplace_back();
        role.stage = stage;
        role.first_layer = plan.layers_of(stage).first;
        role.last_layer = plan.layers_of(stage).last;
        role.last = role.last_layer + 1 == flow.layers();
        role.sends_gradient = !ways.returned.empty();
        role.values.reserve(ways.arriving.size());
        for (const ValueWay& way : ways.arriving) {
            role.values.push_back(awaited(way, false));
            AwaitedValue*& before = newest[way.value];
            if (before != nullptr) before->kept = true;
            before = &role.values.back();
        }
        for (const ValueWay& way : ways.returning) role.gradients.push_back(awaited(way, true));
    }
    return roles;
}

StageCommands StageMachine::on(const StageEvent& event) {
    StageCommands out;
    std::visit([&](const auto& e) { handle(e, out); }, event);
    return out;
}

void StageMachine::handle(const stage_event::Configured& event, StageCommands& out) {
    generation_ = event.generation;
    slices_ = event.slices;
    missing_peers_ = event.peers;
    to_supply_ = event.supply;
    restore_step_ = event.restore_step;
    keep_snapshots_ = event.keep_snapshots;
    ties_ = event.ties;
    tied_sent_ = updated_ = false;
    snapshot_after_update_ = false;
    state_.reset();
    actions_.clear();
    next_action_ = 0;
    action_running_ = false;
    sums_due_ = false;
    next_step_.reset();
    std::erase_if(arrived_, [&](const TensorAddress& address) {
        const bool stale = address.generation < generation_;
        if (stale) out.push_back(stage_command::DropTensor{address});
        return stale;
    });
    phase_ = Phase::kLoading;
    missing_layers_.clear();
    for (const LayerTransfer& transfer : event.restore) {
        for (auto layer = static_cast<int>(transfer.first_layer);
             layer <= static_cast<int>(transfer.last_layer); ++layer) {
            if (transfer.peer == event.device) {
                out.push_back(stage_command::LoadLayer{restore_step_, layer});
            } else {
                missing_layers_.insert(layer);
            }
        }
    }
    supply_attached(out);
    ready_if_loaded(out);
}

void StageMachine::handle(const stage_event::Attached& event, StageCommands& out) {
    missing_peers_.erase(event.peer);
    supply_attached(out);
    ready_if_loaded(out);
}

// What is given waits for the channel: what is queued before it stands may be lost.
void StageMachine::supply_attached(StageCommands& out) {
    if (phase_ != Phase::kLoading) return;
    std::erase_if(to_supply_, [&](const LayerTransfer& transfer) {
        if (missing_peers_.contains(transfer.peer)) return false;
        out.push_back(stage_command::SupplyLayers{restore_step_, transfer});
        return true;
    });
}

void StageMachine::handle(const stage_event::LayerArrived& event, StageCommands& out) {
    if (event.generation != generation_) return;
    if (event.replica) {
        if (keep_snapshots_) out.push_back(stage_command::SendStored{event.step, event.layer});
        return;
    }
    if (phase_ != Phase::kLoading || event.step != restore_step_ ||
        missing_layers_.erase(event.layer) == 0)
        return;
    out.push_back(stage_command::LoadLayer{event.step, event.layer});
    ready_if_loaded(out);
}

void StageMachine::ready_if_loaded(StageCommands& out) {
    if (phase_ != Phase::kLoading || !missing_layers_.empty() || !missing_peers_.empty()) return;
    phase_ = Phase::kIdle;
    state_ = restore_step_;
    out.push_back(stage_command::SendReady{});
}

void StageMachine::handle(const stage_event::TensorArrived& event, StageCommands& out) {
    const bool stale = event.address.generation < generation_ ||
                       (phase_ == Phase::kRunning && event.address.generation == generation_ &&
                        event.address.step < step_);
    if (stale || !arrived_.insert(event.address).second) {
        out.push_back(stage_command::DropTensor{event.address});
        return;
    }
    if (updated_) return end_update(out);
    if (is_sum(event.address.kind)) return take_sums(out);
    run_next(out);
}

void StageMachine::take_sums(StageCommands& out) {
    if (phase_ != Phase::kRunning || !sums_due_) return;
    for (auto it = arrived_.begin(); it != arrived_.end();) {
        const bool due = is_sum(it->kind) && it->generation == generation_ && it->step == step_;
        if (due) out.push_back(stage_command::TakeSum{*it});
        it = due ? arrived_.erase(it) : std::next(it);
    }
}

// A Begin means that all are ready: what was given is no longer asked for.
void StageMachine::drop_snapshots(std::uint64_t recovery_point, StageCommands& out) const {
    constexpr auto kAll = std::numeric_limits<std::uint64_t>::max();
    out.push_back(stage_command::DropSnapshots{keep_snapshots_ ? recovery_point : kAll});
}

void StageMachine::handle(const stage_event::Begun& event, StageCommands& out) {
    if (event.generation != generation_) return;  // of a plan that is no longer in force
    if (slices_.empty()) {
        drop_snapshots(event.begin.recovery_point, out);
        return;
    }
    if (phase_ == Phase::kDone || phase_ == Phase::kUpdating) {
        next_step_ = event;
        return;
    }
    if (phase_ != Phase::kIdle) {
        out.push_back(stage_command::ProtocolError{
            fmt::format("Begin of step {} while {}", event.step, waiting_for())});
        return;
    }
    if (event.begin.mode == StepMode::kTrain && state_ != event.step) {
        out.push_back(stage_command::ProtocolError{
            fmt::format("Begin of step {} from another state", event.step)});
        return;
    }
    step_ = event.step;
    mode_ = event.begin.mode;
    actions_ = event.actions;
    next_action_ = 0;
    action_running_ = false;
    tied_sent_ = updated_ = false;
    phase_ = Phase::kRunning;
    drop_snapshots(event.begin.recovery_point, out);
    out.push_back(stage_command::StartStep{event.step, event.begin});
    sums_due_ = event.sums && mode_ == StepMode::kTrain;
    take_sums(out);
    run_next(out);
}

std::optional<std::vector<TensorAddress>> StageMachine::arrived(TensorKind kind,
                                                                std::uint32_t micro_batch,
                                                                const AwaitedValue& value) const {
    const auto producer = static_cast<std::uint32_t>(std::max(0, value.producer));
    TensorAddress low;
    low.generation = generation_;
    low.step = step_;
    low.kind = kind;
    low.micro_batch = micro_batch;
    std::vector<TensorAddress> found;
    for (auto it = arrived_.lower_bound(low); it != arrived_.end(); ++it) {
        if (it->generation != generation_ || it->step != step_ || it->kind != kind ||
            it->micro_batch != micro_batch)
            break;
        if (it->producer != producer) continue;
        if (!value.output) {
            found.push_back(*it);
        } else if (it->output == *value.output && (!value.user || it->slice == value.user->value)) {
            return std::vector<TensorAddress>{*it};
        }
    }
    if (found.empty() || found.size() != found.front().outputs) return std::nullopt;
    return found;
}

std::optional<std::vector<TensorAddress>> StageMachine::all_arrived(
    const std::vector<AwaitedValue>& values, bool gradients, std::uint32_t micro_batch) const {
    const bool evaluating = mode_ == StepMode::kEvaluate;
    std::vector<TensorAddress> all;
    for (const AwaitedValue& value : values) {
        const TensorKind kind = gradients ? TensorKind::kGradient
                                : value.producer < 0
                                    ? evaluating ? TensorKind::kEvalInput : TensorKind::kInput
                                : evaluating ? TensorKind::kEvalActivation
                                             : TensorKind::kActivation;
        const auto found = arrived(kind, micro_batch, value);
        if (!found) return std::nullopt;
        all.insert(all.end(), found->begin(), found->end());
    }
    return all;
}

std::optional<std::vector<TensorAddress>> StageMachine::inputs_of(const Action& action) const {
    const SliceRole& slice = slices_[static_cast<std::size_t>(action.slice)];
    const auto m = static_cast<std::uint32_t>(action.micro_batch);
    if (action.kind == ActionKind::kWeightGradient) return std::vector<TensorAddress>{};
    if (action.kind != ActionKind::kForward) return all_arrived(slice.gradients, true, m);
    auto inputs = all_arrived(slice.values, false, m);
    if (!inputs || !slice.last) return inputs;
    const auto labels =
        arrived(mode_ == StepMode::kEvaluate ? TensorKind::kEvalLabel : TensorKind::kLabel, m, {});
    if (!labels) return std::nullopt;
    inputs->insert(inputs->end(), labels->begin(), labels->end());
    return inputs;
}

void StageMachine::run_next(StageCommands& out) {
    if (phase_ != Phase::kRunning || action_running_) return;
    if (next_action_ == actions_.size()) return end_step(out);
    const Action& action = actions_[next_action_];
    auto tensors = inputs_of(action);
    if (!tensors) return;
    std::set<TensorAddress> kept;
    if (action.kind == ActionKind::kForward)
        for (const AwaitedValue& value : slices_[static_cast<std::size_t>(action.slice)].values)
            if (value.kept)
                for (const TensorAddress& address : *tensors)
                    if (is_of(address, value)) kept.insert(address);
    for (const TensorAddress& address : *tensors)
        if (!kept.contains(address)) arrived_.erase(address);
    action_running_ = true;
    out.push_back(stage_command::Run{action, std::move(*tensors), std::move(kept)});
}

std::optional<std::vector<TensorAddress>> StageMachine::ties_arrived(TensorKind kind) const {
    const bool gradients = kind == TensorKind::kTiedGradient;
    std::vector<TensorAddress> found;
    for (const TieWay& tie : gradients ? ties_.gradients : ties_.weights) {
        const auto it = std::find_if(arrived_.begin(), arrived_.end(), [&](const auto& address) {
            const int from = gradients ? tie.use.user : tie.use.home;
            return address.kind == kind && address.generation == generation_ &&
                   address.step == step_ && address.name == tie.use.name &&
                   address.producer == static_cast<std::uint32_t>(from);
        });
        if (it == arrived_.end()) return std::nullopt;
        found.push_back(*it);
    }
    return found;
}

void StageMachine::end_step(StageCommands& out) {
    if (sums_due_) return;
    if (mode_ == StepMode::kTrain && ties_.sends) {
        if (!std::exchange(tied_sent_, true))
            out.push_back(stage_command::SendTiedGradients{step_});
        auto gradients = ties_arrived(TensorKind::kTiedGradient);
        if (!gradients) return;
        for (const TensorAddress& address : *gradients) arrived_.erase(address);
        if (!gradients->empty())
            out.push_back(stage_command::TakeTiedGradients{std::move(*gradients)});
    }
    phase_ = Phase::kReporting;
    out.push_back(stage_command::ReportStep{});
}

void StageMachine::handle(const stage_event::SumsComplete&, StageCommands& out) {
    sums_due_ = false;
    run_next(out);
}

void StageMachine::handle(const stage_event::ActionFinished&, StageCommands& out) {
    action_running_ = false;
    ++next_action_;
    run_next(out);
}

void StageMachine::handle(const stage_event::StepReported&, StageCommands&) {
    phase_ = mode_ == StepMode::kTrain ? Phase::kDone : Phase::kIdle;
}

void StageMachine::handle(const stage_event::CommitReceived& event, StageCommands& out) {
    if (event.generation != generation_) return;
    if (phase_ != Phase::kDone || event.step != step_) {
        out.push_back(stage_command::ProtocolError{
            fmt::format("Commit of step {} while {}", event.step, waiting_for())});
        return;
    }
    if (state_ != step_) {
        out.push_back(stage_command::ProtocolError{
            fmt::format("Commit of step {} onto another state", event.step)});
        return;
    }
    phase_ = Phase::kUpdating;
    snapshot_after_update_ = event.commit.snapshot && keep_snapshots_;
    state_.reset();
    out.push_back(stage_command::ApplyUpdate{event.commit});
}

void StageMachine::handle(const stage_event::UpdateFinished&, StageCommands& out) {
    updated_ = true;
    if (ties_.sends) out.push_back(stage_command::SendTiedWeights{step_});
    end_update(out);
}

void StageMachine::end_update(StageCommands& out) {
    auto weights = ties_arrived(TensorKind::kTiedWeight);
    if (!weights) return;
    updated_ = false;
    for (const TensorAddress& address : *weights) arrived_.erase(address);
    if (!weights->empty()) out.push_back(stage_command::TakeTiedWeights{std::move(*weights)});
    phase_ = Phase::kIdle;
    state_ = step_ + 1;
    out.push_back(stage_command::SendCommitted{step_});
    if (snapshot_after_update_) out.push_back(stage_command::TakeSnapshot{*state_});
    if (next_step_) {
        const auto begun = std::move(*next_step_);
        next_step_.reset();
        handle(begun, out);
    }
}

void StageMachine::handle(const stage_event::FetchReceived& event, StageCommands& out) {
    if (event.generation != generation_) return;  // of a plan that is no longer in force
    if (phase_ == Phase::kIdle) {
        out.push_back(stage_command::SendState{event.fetch.optimizer_state});
    } else {
        out.push_back(stage_command::ProtocolError{fmt::format("Fetch while {}", waiting_for())});
    }
}

std::string StageMachine::sender_missed(const Action& action, const SliceRole& slice) const {
    const bool gradients = action.kind != ActionKind::kForward;
    for (const AwaitedValue& value : gradients ? slice.gradients : slice.values)
        if (!all_arrived({value}, gradients, static_cast<std::uint32_t>(action.micro_batch)))
            return value.from;
    return kPortalPeer;  // the labels
}

std::string StageMachine::waiting_for() const {
    switch (phase_) {
        case Phase::kUnconfigured:
            return "waiting for work";
        case Phase::kLoading:
            if (!missing_peers_.empty())
                return fmt::format("waiting for a channel with {}", *missing_peers_.begin());
            return fmt::format("waiting for the state of {} layers, first layer {}",
                               missing_layers_.size(),
                               missing_layers_.empty() ? -1 : *missing_layers_.begin());
        case Phase::kIdle:
            return fmt::format("idle after step {}", step_);
        case Phase::kRunning: {
            if (next_action_ >= actions_.size() && sums_due_)
                return fmt::format("at step {} waiting for the sums of its twins", step_);
            if (next_action_ >= actions_.size())
                return fmt::format("at step {} waiting for the gradients of tied weights", step_);
            const Action& action = actions_[next_action_];
            const SliceRole& slice = slices_[static_cast<std::size_t>(action.slice)];
            return fmt::format(
                "at step {} {}{} {}", step_, static_cast<char>(action.kind), action.micro_batch,
                action_running_ ? "computing"
                                : "waiting for tensors from " + sender_missed(action, slice));
        }
        case Phase::kReporting:
            return fmt::format("reporting step {}", step_);
        case Phase::kDone:
            return fmt::format("waiting for the commit of step {}", step_);
        case Phase::kUpdating:
            return updated_ ? fmt::format("at step {} waiting for tied weights", step_)
                            : fmt::format("applying step {}", step_);
    }
    return {};
}

}  // namespace ecopipe
