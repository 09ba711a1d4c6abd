#pragma once
// The portal's side of a run, as a state machine without threads, sockets or clocks: `outcomes =
// machine.on(event)`. It decides what is sent to whom, which step all can go back to, and when a
// step counts; the caller sends, plans and prepares batches.
//
//   Configure -> Ready from all;  Begin(step) -> Done from all;  Commit(step) -> Committed from
//   all;  Fetch -> Fetched
//
// Commit(n) and Begin(n + 1) go out together, so the answers to both are awaited at once. Nothing
// of a step is applied anywhere before every stage has said Done.
//
// "State n" is what step n starts from. The recovery point is the newest n whose state is confirmed
// on two processes for every layer, or is the base that the portal has (initial weights or
// checkpoint); stages keep it until a Begin announces a newer one. When a device of the plan fails,
// the machine is broken until the caller asks for a new configuration: then all go back to the
// newest state that can be put together from one step, under a new generation.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "core/result.h"
#include "domain/plan.h"
#include "domain/plan_index.h"
#include "orchestrator/session/recovery.h"
#include "transport/wire/messages.h"

namespace ecopipe {

namespace session_event {
// What the caller wants.
struct BaseSet {  // the portal can give state `step` by itself from now on
    std::uint64_t step;
    bool only = false;  // and nothing else counts any more: another training begins
};
// Allowed at the start, when broken, and between steps when all have committed.
struct ConfigureWanted {
    Plan plan;
    ReplicaPlan replicas;
    std::string cause;
};
struct BeginWanted {
    std::uint64_t step;
    bool evaluation;
};
struct CommitWanted {};  // of the step whose AllDone came
struct FetchWanted {};
// What came back.
struct ReadyReceived {
    std::string device;
    std::uint32_t generation;
};
struct DoneReceived {
    std::string device;
    std::uint32_t generation;
    std::uint64_t step;
    Done done;
};
struct CommittedReceived {
    std::string device;
    std::uint32_t generation;
    std::uint64_t step;
};
struct StoredReceived {
    std::string device;
    std::uint32_t generation;
    std::uint64_t step;
    Stored stored;
};
struct FetchedReceived {
    std::string device;
    std::uint32_t generation;
    std::uint32_t state_tensors;
};
struct DeviceFailed {  // by its own word; it leaves
    std::string device;
    std::uint64_t step;
    std::uint32_t micro_batch;
    ExitCode code;
    std::string reason;
};
struct DeviceJoined {  // a new process: whatever one of that name held is gone
    std::string device;
};
struct DeviceLost {
    std::string device;
    std::string how;
};
struct Stalled {  // all are alive and nothing moves
    std::string how;
};
struct Unreachable {  // devices that have to exchange tensors do not reach one another
    std::string how;
    std::set<std::string> left_out;  // whose states the others may not get: as if they were lost
};
}  // namespace session_event
using SessionEvent = std::variant<
    session_event::BaseSet, session_event::ConfigureWanted, session_event::BeginWanted,
    session_event::CommitWanted, session_event::FetchWanted, session_event::ReadyReceived,
    session_event::DoneReceived, session_event::CommittedReceived, session_event::StoredReceived,
    session_event::FetchedReceived, session_event::DeviceJoined, session_event::DeviceFailed,
    session_event::DeviceLost, session_event::Stalled, session_event::Unreachable>;

namespace session_outcome {
// To send; the generation is the machine's.
struct SendConfigure {
    std::string device;
    std::uint64_t restore_step;
    std::vector<LayerTransfer> restore;
    std::vector<LayerTransfer> supply;
    bool keep_snapshots;
    std::string buddy;
    std::vector<std::string> peers;  // devices that it needs a channel with
    std::string cause;
};
struct SupplyFromPortal {  // once the devices can be reached
    std::uint64_t step;
    std::vector<LayerTransfer> supply;
};
struct SendBegin {
    std::vector<std::string> devices;
    std::uint64_t step;
    bool evaluation;
    std::uint64_t recovery_point;
};
struct SendCommit {
    std::vector<std::string> devices;
    std::uint64_t step;
    bool snapshot;
};
struct SendFetch {
    std::vector<std::string> devices;
};
// To know.
struct AllReady {
    std::uint64_t step;  // that comes next
};
struct AllDone {
    std::uint64_t step;
    std::map<std::string, Done> done;  // by device
};
struct AllCommitted {
    std::uint64_t step;
};
struct AllFetched {
    std::uint32_t state_tensors;  // in all
};
struct RecoveryPoint {  // a newer one
    std::uint64_t step;
};
// Nothing goes on before a new configuration; `device` is "" when none is to blame.
struct Broken {
    std::string device;
    Error error;  // names device, stage, step and micro-batch
};
struct Fatal {  // no other device can help
    Error error;
};
struct ReplicasLost {  // a device outside the plan that kept some is gone
    std::string device;
};
}  // namespace session_outcome
using SessionOutcome =
    std::variant<session_outcome::SendConfigure, session_outcome::SupplyFromPortal,
                 session_outcome::SendBegin, session_outcome::SendCommit,
                 session_outcome::SendFetch, session_outcome::AllReady, session_outcome::AllDone,
                 session_outcome::AllCommitted, session_outcome::AllFetched,
                 session_outcome::RecoveryPoint, session_outcome::Broken, session_outcome::Fatal,
                 session_outcome::ReplicasLost>;
using SessionOutcomes = std::vector<SessionOutcome>;

class SessionMachine {
  public:
    // `stateful_layers`: those that have any tensor. `flow`: what the layers hand one another; of
    // no layer: a chain.
    explicit SessionMachine(std::vector<int> stateful_layers, ValueGraph flow = {})
        : holdings_(std::move(stateful_layers)), flow_(std::move(flow)) {}

    [[nodiscard]] SessionOutcomes on(const SessionEvent& event);
    // Who still owes what, for a message: "pi owes Done of step 7".
    [[nodiscard]] std::string waiting_for() const;
    [[nodiscard]] bool all_committed() const { return owe_committed_.empty(); }
    [[nodiscard]] bool broken() const { return phase_ == Phase::kBroken; }
    [[nodiscard]] bool ready() const { return phase_ == Phase::kRunning; }
    [[nodiscard]] bool work_is_due() const {
        return !owe_ready_.empty() || !owe_done_.empty() || !owe_committed_.empty() ||
               !owe_fetched_.empty();
    }
    [[nodiscard]] std::uint32_t generation() const { return generation_; }
    [[nodiscard]] std::uint64_t recovery_point() const { return recovery_point_; }
    [[nodiscard]] const Holdings& holdings() const { return holdings_; }

  private:
    enum class Phase { kIdle, kConfiguring, kRunning, kBroken };
    void handle(const session_event::BaseSet& event, SessionOutcomes& out);
    void handle(const session_event::ConfigureWanted& event, SessionOutcomes& out);
    void handle(const session_event::BeginWanted& event, SessionOutcomes& out);
    void handle(const session_event::CommitWanted& event, SessionOutcomes& out);
    void handle(const session_event::FetchWanted& event, SessionOutcomes& out);
    void handle(const session_event::ReadyReceived& event, SessionOutcomes& out);
    void handle(const session_event::DoneReceived& event, SessionOutcomes& out);
    void handle(const session_event::CommittedReceived& event, SessionOutcomes& out);
    void handle(const session_event::StoredReceived& event, SessionOutcomes& out);
    void handle(const session_event::FetchedReceived& event, SessionOutcomes& out);
    void handle(const session_event::DeviceJoined& event, SessionOutcomes& out);
    void handle(const session_event::DeviceFailed& event, SessionOutcomes& out);
    void handle(const session_event::DeviceLost& event, SessionOutcomes& out);
    void handle(const session_event::Stalled& event, SessionOutcomes& out);
    void handle(const session_event::Unreachable& event, SessionOutcomes& out);
    void break_off(const std::string& device, Error error, SessionOutcomes& out);
    [[nodiscard]] bool has_part(const std::string& device) const;
    void hold_plan(std::uint64_t step);  // every device of the plan holds its layers' state `step`
    void advance_recovery_point(SessionOutcomes& out);
    [[nodiscard]] std::string place_of(const std::string& device) const;

    Phase phase_ = Phase::kIdle;
    Holdings holdings_;
    ValueGraph flow_;
    PlanIndex index_;
    ReplicaPlan replicas_;
    std::uint32_t generation_ = 0;
    std::set<std::string> devices_;    // of the plan
    std::set<std::string> involved_;   // they, and those that give or keep state
    std::set<std::string> to_forget_;  // have no part any more and are told so by the next Begin
    std::set<std::string> owe_ready_;
    std::set<std::string> owe_done_;
    std::set<std::string> owe_committed_;
    std::set<std::string> owe_fetched_;
    std::uint64_t begun_step_ = 0;
    bool evaluating_ = false;
    std::uint64_t committed_step_ = 0;
    std::optional<std::uint64_t> live_;  // what every device of the plan has in its executors
    std::uint64_t restore_step_ = 0;
    std::uint64_t recovery_point_ = 0;
    std::optional<std::uint64_t> snapshot_under_way_;
    std::uint64_t last_snapshot_ = 0;
    bool snapshot_at_once_ = false;         // copies were lost: replace them with the next commit
    std::set<std::uint64_t> failed_steps_;  // that a stage gave up on by itself
    bool ever_ready_ = false;
    std::map<std::string, Done> done_;
    std::uint32_t fetched_tensors_ = 0;
};

}  // namespace ecopipe
