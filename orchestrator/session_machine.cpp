#include "orchestrator/session_machine.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/check.h"
#include "core/log.h"

namespace ecopipe {

SessionOutcomes SessionMachine::on(const SessionEvent& event) {
    SessionOutcomes out;
    std::visit([&](const auto& e) { handle(e, out); }, event);
    return out;
}

void SessionMachine::handle(const session_event::ConfigureSent& event, SessionOutcomes&) {
    ECOPIPE_CHECK(event.generation > generation_);
    generation_ = event.generation;
    devices_ = {event.devices.begin(), event.devices.end()};
    owe_ready_ = devices_;
    owe_done_.clear();
    owe_committed_.clear();
    owe_fetched_.clear();
}

void SessionMachine::handle(const session_event::BeginSent& event, SessionOutcomes&) {
    ECOPIPE_CHECK(owe_done_.empty());
    begun_step_ = event.step;
    owe_done_ = devices_;
    done_.clear();
}

void SessionMachine::handle(const session_event::CommitSent& event, SessionOutcomes&) {
    ECOPIPE_CHECK(owe_done_.empty() && owe_committed_.empty() && event.step == begun_step_);
    committed_step_ = event.step;
    owe_committed_ = devices_;
}

void SessionMachine::handle(const session_event::FetchSent&, SessionOutcomes&) {
    owe_fetched_ = devices_;
    fetched_tensors_ = 0;
}

void SessionMachine::handle(const session_event::ReadyReceived& event, SessionOutcomes& out) {
    if (event.generation != generation_) return;
    if (owe_ready_.erase(event.device) > 0 && owe_ready_.empty())
        out.push_back(session_outcome::AllReady{});
}

void SessionMachine::handle(const session_event::DoneReceived& event, SessionOutcomes& out) {
    if (event.generation != generation_ || event.step != begun_step_) return;
    if (owe_done_.erase(event.device) == 0) return;
    done_[event.device] = event.done;
    if (owe_done_.empty()) out.push_back(session_outcome::AllDone{event.step, std::move(done_)});
}

void SessionMachine::handle(const session_event::CommittedReceived& event, SessionOutcomes& out) {
    if (event.generation != generation_ || event.step != committed_step_) return;
    if (owe_committed_.erase(event.device) > 0 && owe_committed_.empty())
        out.push_back(session_outcome::AllCommitted{event.step});
}

void SessionMachine::handle(const session_event::FetchedReceived& event, SessionOutcomes& out) {
    if (owe_fetched_.erase(event.device) == 0) return;
    fetched_tensors_ += event.state_tensors;
    if (owe_fetched_.empty()) out.push_back(session_outcome::AllFetched{fetched_tensors_});
}

void SessionMachine::handle(const session_event::DeviceFailed& event, SessionOutcomes& out) {
    out.push_back(session_outcome::Failure{
        {event.code, fmt::format("device {}, step {}, micro-batch {}: {}", event.device, event.step,
                                 event.micro_batch, printable(event.reason))}});
}

void SessionMachine::handle(const session_event::DeviceLost& event, SessionOutcomes& out) {
    if (!devices_.contains(event.device)) return;
    out.push_back(session_outcome::Failure{
        {ExitCode::kUnreachable,
         fmt::format("device {} was lost at step {}: {}", event.device, begun_step_, event.how)}});
}

std::string SessionMachine::waiting_for() const {
    const auto list = [](const std::set<std::string>& devices) {
        return fmt::format("{}", fmt::join(devices, ", "));
    };
    if (!owe_ready_.empty()) return list(owe_ready_) + " to be ready";
    if (!owe_committed_.empty())
        return fmt::format("{} to commit step {}", list(owe_committed_), committed_step_);
    if (!owe_done_.empty())
        return fmt::format("{} to finish step {}", list(owe_done_), begun_step_);
    if (!owe_fetched_.empty()) return list(owe_fetched_) + " to send its state";
    return "nothing";
}

}  // namespace ecopipe
