#pragma once
// The portal's side of the begin-commit protocol, as a state machine without threads, sockets or
// clocks: `outcomes = machine.on(event)`. It knows which devices still owe which answer; what to
// send is the caller's.
//
//   Configure -> Ready from all;  Begin(step) -> Done from all;  Commit(step) -> Committed from
//   all;  Fetch -> Fetched
//
// Commit(n) and Begin(n + 1) go out together, so the answers to both are awaited at once. Nothing
// of a step is applied anywhere before every stage has said Done.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "core/result.h"
#include "transport/messages.h"

namespace ecopipe {

namespace session_event {
// What the caller has just sent to every device.
struct ConfigureSent {
    std::uint32_t generation;
    std::vector<std::string> devices;
};
struct BeginSent {
    std::uint64_t step;
    bool evaluation;
};
struct CommitSent {
    std::uint64_t step;
};
struct FetchSent {};
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
struct FetchedReceived {
    std::string device;
    std::uint32_t state_tensors;
};
struct DeviceFailed {
    std::string device;
    std::uint64_t step;
    std::uint32_t micro_batch;
    ExitCode code;
    std::string reason;
};
struct DeviceLost {
    std::string device;
    std::string how;
};
}  // namespace session_event
using SessionEvent = std::variant<session_event::ConfigureSent, session_event::BeginSent,
                                  session_event::CommitSent, session_event::FetchSent,
                                  session_event::ReadyReceived, session_event::DoneReceived,
                                  session_event::CommittedReceived, session_event::FetchedReceived,
                                  session_event::DeviceFailed, session_event::DeviceLost>;

namespace session_outcome {
struct AllReady {};
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
struct Failure {
    Error error;  // names device, stage's last known step and micro-batch
};
}  // namespace session_outcome
using SessionOutcome =
    std::variant<session_outcome::AllReady, session_outcome::AllDone, session_outcome::AllCommitted,
                 session_outcome::AllFetched, session_outcome::Failure>;
using SessionOutcomes = std::vector<SessionOutcome>;

class SessionMachine {
  public:
    [[nodiscard]] SessionOutcomes on(const SessionEvent& event);
    // Who still owes what, for a message: "pi owes Done of step 7".
    [[nodiscard]] std::string waiting_for() const;
    [[nodiscard]] bool all_committed() const { return owe_committed_.empty(); }

  private:
    void handle(const session_event::ConfigureSent& event, SessionOutcomes& out);
    void handle(const session_event::BeginSent& event, SessionOutcomes& out);
    void handle(const session_event::CommitSent& event, SessionOutcomes& out);
    void handle(const session_event::FetchSent& event, SessionOutcomes& out);
    void handle(const session_event::ReadyReceived& event, SessionOutcomes& out);
    void handle(const session_event::DoneReceived& event, SessionOutcomes& out);
    void handle(const session_event::CommittedReceived& event, SessionOutcomes& out);
    void handle(const session_event::FetchedReceived& event, SessionOutcomes& out);
    void handle(const session_event::DeviceFailed& event, SessionOutcomes& out);
    void handle(const session_event::DeviceLost& event, SessionOutcomes& out);

    std::uint32_t generation_ = 0;
    std::set<std::string> devices_;
    std::set<std::string> owe_ready_;
    std::set<std::string> owe_done_;
    std::set<std::string> owe_committed_;
    std::set<std::string> owe_fetched_;
    std::uint64_t begun_step_ = 0;
    std::uint64_t committed_step_ = 0;
    std::map<std::string, Done> done_;
    std::uint32_t fetched_tensors_ = 0;
};

}  // namespace ecopipe
