#pragma once
// What a stage does next, as a state machine without threads, sockets, torch or clocks: `commands =
// machine.on(event)`.
//
//   unconfigured --Configured--> loading --all state and peers--> idle --Begin--> running --last
//   action--> done done --Commit--> updating --> idle        (an evaluation goes from running
//   straight back to idle)
//
// Configured may come at any time: it gives up the step at hand and goes to the state that it
// names. A device without slices only gives state and keeps replicas.
//
// Tensors are addressed, never expected in an order: those of an older generation are dropped,
// those of a later step wait for its Begin.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "core/result.h"
#include "domain/action.h"
#include "domain/plan_index.h"
#include "domain/tensor_address.h"
#include "transport/wire/messages.h"

namespace ecopipe {

// What an action waits for: a value, or the gradient of one.
struct AwaitedValue {
    int producer = -1;              // the layer that makes the value; -1: an input of the model
    std::optional<int> output;      // which of its values; nothing in a chain: all, however many
    std::string from;               // the devices that may send it, for people
    std::optional<StageId> user{};  // of a gradient in a graph: whose
    bool kept = false;              // a later slice of this device takes it too
};

// One group of consecutive layers on this device.
struct SliceRole {
    StageId stage;
    int first_layer = 0;
    int last_layer = 0;
    bool last = false;                    // takes the labels
    std::vector<AwaitedValue> values;     // for a forward, in the order in which it takes them
    std::vector<AwaitedValue> gradients;  // for a backward, in the order in which they are added
    bool sends_gradient = false;
};

// What comes here once a step of tied weights whose home and user are on two stages.
struct AwaitedTies {
    std::vector<TieWay> gradients;  // those with their home here
    std::vector<TieWay> weights;    // those with a user here; of several users of one weight, one
    bool sends = false;             // this device has one of the two
};
[[nodiscard]] AwaitedTies awaited_ties(const PlanIndex& plan, const std::string& device);

// This device's slices in a plan, in layer order.
[[nodiscard]] std::vector<SliceRole> slice_roles(const PlanIndex& plan, const ValueGraph& flow,
                                                 const std::string& device);

namespace stage_event {
struct Configured {
    std::uint32_t generation;
    std::string device;  // this one
    std::vector<SliceRole> slices;
    std::set<std::string> peers;     // that must attach
    std::uint64_t restore_step = 0;  // the state to start from
    std::vector<LayerTransfer> restore;
    std::vector<LayerTransfer> supply;
    bool keep_snapshots = false;
    AwaitedTies ties{};
};
struct Attached {
    std::string peer;
};
// All tensors of a layer's state are kept now; `replica`: for another device.
struct LayerArrived {
    std::uint32_t generation;
    std::uint64_t step;
    int layer;
    bool replica;
};
struct TensorArrived {
    TensorAddress address;
};
struct Begun {
    std::uint32_t generation;
    std::uint64_t step;
    Begin begin;
    ActionList actions;
    bool sums = false;  // other devices hold the slice too, and the step's sums are exchanged
};
struct SumsComplete {};  // all of them, those of the step under way
struct ActionFinished {};
struct StepReported {};
struct CommitReceived {
    std::uint32_t generation;
    std::uint64_t step;
    Commit commit;
};
struct UpdateFinished {};
struct FetchReceived {
    std::uint32_t generation;
    Fetch fetch;
};
}  // namespace stage_event
using StageEvent =
    std::variant<stage_event::Configured, stage_event::Attached, stage_event::LayerArrived,
                 stage_event::TensorArrived, stage_event::Begun, stage_event::SumsComplete,
                 stage_event::ActionFinished, stage_event::StepReported,
                 stage_event::CommitReceived, stage_event::UpdateFinished,
                 stage_event::FetchReceived>;

namespace stage_command {
// From the kept states into the slice that has the layer.
struct LoadLayer {
    std::uint64_t step;
    int layer;
};
struct SupplyLayers {
    std::uint64_t step;
    LayerTransfer transfer;
};
struct DropSnapshots {  // of earlier steps
    std::uint64_t before;
};
struct TakeSnapshot {  // of every slice, for this process and its buddy; then Stored
    std::uint64_t step;
};
struct SendStored {
    std::uint64_t step;
    int layer;
};
struct SendReady {};
struct StartStep {
    std::uint64_t step;
    Begin begin;
};
// Run one action; `tensors` are the addresses of what it consumes: inputs, then labels, or the
// returned gradients.
struct Run {
    Action action;
    std::vector<TensorAddress> tensors;
    std::set<TensorAddress> kept{};  // of them: a later slice of this device takes them again
};
struct DropTensor {
    TensorAddress address;
};
struct TakeSum {  // of another device that holds the slice
    TensorAddress address;
};
// All actions of a training step are done: what was found for weights with their home elsewhere.
struct SendTiedGradients {
    std::uint64_t step;
};
struct TakeTiedGradients {
    std::vector<TensorAddress> tensors;
};
struct ReportStep {};  // send Done
struct ApplyUpdate {
    Commit commit;
};
// The update is made: the new weights to those who use them elsewhere, and from their homes. By the
// time this is carried out the next step may have begun.
struct SendTiedWeights {
    std::uint64_t step;
};
struct TakeTiedWeights {
    std::vector<TensorAddress> tensors;
};
struct SendCommitted {
    std::uint64_t step;
};
struct SendState {
    bool optimizer_state;
};
struct ProtocolError {  // the portal broke the order of messages
    std::string reason;
};
}  // namespace stage_command
using StageCommand = std::variant<
    stage_command::LoadLayer, stage_command::SupplyLayers, stage_command::DropSnapshots,
    stage_command::TakeSnapshot, stage_command::SendStored, stage_command::SendReady,
    stage_command::StartStep, stage_command::Run, stage_command::DropTensor, stage_command::TakeSum,
    stage_command::SendTiedGradients, stage_command::TakeTiedGradients, stage_command::ReportStep,
    stage_command::ApplyUpdate, stage_command::SendTiedWeights, stage_command::TakeTiedWeights,
    stage_command::SendCommitted, stage_command::SendState, stage_command::ProtocolError>;
using StageCommands = std::vector<StageCommand>;

class StageMachine {
  public:
    [[nodiscard]] StageCommands on(const StageEvent& event);

    [[nodiscard]] std::uint32_t generation() const { return generation_; }
    [[nodiscard]] std::uint64_t step() const { return step_; }
    [[nodiscard]] StepMode mode() const { return mode_; }
    // The state that the slices hold, whatever of a step is under way; nothing while they load.
    [[nodiscard]] std::optional<std::uint64_t> state() const {
        return slices_.empty() ? std::nullopt : state_;
    }
    [[nodiscard]] const std::vector<SliceRole>& slices() const { return slices_; }
    // What the stage waits for, for a message a person can act on.
    [[nodiscard]] std::string waiting_for() const;

  private:
    enum class Phase { kUnconfigured, kLoading, kIdle, kRunning, kReporting, kDone, kUpdating };
    void handle(const stage_event::Configured& event, StageCommands& out);
    void handle(const stage_event::Attached& event, StageCommands& out);
    void handle(const stage_event::LayerArrived& event, StageCommands& out);
    void handle(const stage_event::TensorArrived& event, StageCommands& out);
    void handle(const stage_event::Begun& event, StageCommands& out);
    void handle(const stage_event::SumsComplete& event, StageCommands& out);
    void handle(const stage_event::ActionFinished& event, StageCommands& out);
    void handle(const stage_event::StepReported& event, StageCommands& out);
    void handle(const stage_event::CommitReceived& event, StageCommands& out);
    void handle(const stage_event::UpdateFinished& event, StageCommands& out);
    void handle(const stage_event::FetchReceived& event, StageCommands& out);
    void supply_attached(StageCommands& out);
    void ready_if_loaded(StageCommands& out);
    void drop_snapshots(std::uint64_t recovery_point, StageCommands& out) const;
    void run_next(StageCommands& out);
    void take_sums(StageCommands& out);   // those that have come
    void end_step(StageCommands& out);    // once all sums and tied gradients are here
    void end_update(StageCommands& out);  // once all tied weights are
    // All addresses of one kind, or nothing while one is missing.
    [[nodiscard]] std::optional<std::vector<TensorAddress>> ties_arrived(TensorKind kind) const;
    // From whom the action still waits for something.
    [[nodiscard]] std::string sender_missed(const Action& action, const SliceRole& slice) const;
    // The addresses that an action consumes, once all have arrived.
    [[nodiscard]] std::optional<std::vector<TensorAddress>> inputs_of(const Action& action) const;
    [[nodiscard]] std::optional<std::vector<TensorAddress>> arrived(
        TensorKind kind, std::uint32_t micro_batch, const AwaitedValue& value) const;
    // All of them, one after the other; nothing unless all have arrived.
    [[nodiscard]] std::optional<std::vector<TensorAddress>> all_arrived(
        const std::vector<AwaitedValue>& values, bool gradients, std::uint32_t micro_batch) const;

    Phase phase_ = Phase::kUnconfigured;
    std::uint32_t generation_ = 0;
    std::vector<SliceRole> slices_;
    std::set<std::string> missing_peers_;
    std::set<int> missing_layers_;
    std::vector<LayerTransfer> to_supply_;
    std::uint64_t restore_step_ = 0;
    bool keep_snapshots_ = false;
    bool snapshot_after_update_ = false;
    std::optional<std::uint64_t> state_;
    std::uint64_t step_ = 0;
    StepMode mode_ = StepMode::kTrain;
    ActionList actions_;
    std::size_t next_action_ = 0;
    bool sums_due_ = false;  // in the step under way
    AwaitedTies ties_;
    bool tied_sent_ = false;  // of this step, gradients
    bool updated_ = false;    // of this commit
    bool action_running_ = false;
    std::set<TensorAddress> arrived_;
    std::optional<stage_event::Begun> next_step_;  // came before this step's update was applied
};

}  // namespace ecopipe
