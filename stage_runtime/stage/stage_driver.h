#pragma once
// What one device does from joining a portal to the end of a run: all decisions of a stage, without
// threads, sockets, torch or clocks. Who owns those (worker.h, the simulated cluster) hands events
// in and lets it work:
//
//   driver.join(instance);                      // then Hello is sent, again and again
//   driver.on(event); ...                       // what has come, in its order
//   driver.tick(progress);                      // every kStageTick at the latest
//   if (driver.next_action()) driver.work();    // one action, when no event waits
//   driver.ended()                              // how this joining ended, once it has
//
// Events come before work: a Configure that has arrived makes the action at hand worthless, so it
// is never begun. Only `work` computes for long.

#include <chrono>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/clock.h"
#include "core/result.h"
#include "domain/plan_index.h"
#include "stage_runtime/stage/link_prober.h"
#include "stage_runtime/stage/memory_control.h"
#include "stage_runtime/stage/stage_compute.h"
#include "stage_runtime/stage/stage_machine.h"
#include "stage_runtime/stage/stage_peers.h"
#include "stage_runtime/stage/stage_uplink.h"
#include "stage_runtime/stage/state_exchange.h"
#include "stage_runtime/stage/step_report.h"
#include "stage_runtime/stage/sum_exchange.h"
#include "stage_runtime/stage/tensor_router.h"
#include "stage_runtime/stage/tied_exchange.h"

namespace ecopipe {

inline constexpr auto kStageTick = std::chrono::milliseconds(50);

namespace stage_input {
struct Message {  // of the portal
    FrameHeader header;
    std::vector<std::byte> body;
};
struct PeerAttached {
    std::string peer;
    std::uint64_t instance;
};
struct RoomMade {};  // has_room() is true again
struct PortalLost {
    Error error;
};
}  // namespace stage_input
using StageInput = std::variant<stage_input::Message, Delivery, stage_input::PeerAttached,
                                stage_input::RoomMade, stage_input::PortalLost>;

struct StageIdentity {
    std::string device;
    std::string portal;  // where it is, for messages
    std::uint16_t data_port = 0;
    double join_timeout_s = 600;
};

struct StageEnd {
    Result<ExitCode> result;      // for this joining
    bool taken_for_lost = false;  // the portal took a living device for lost: it may join again
};

class StageDriver {
  public:
    struct Parts {  // outlive the driver
        StageUplink& portal;
        TensorChannels& channels;
        StageCompute& compute;
        std::function<Instant()> now;
        // A sum of a twin's that has come while `work` computes, if there is one: it need not wait
        // for the end of the action.
        std::function<std::optional<Delivery>()> next_sum{};
        // What tensors may take now, where somebody says; or nobody.
        std::function<std::optional<MemoryBudget>()> memory_budget{};
    };
    StageDriver(StageIdentity identity, Parts parts);

    // Another joining, as `instance`: nothing of the one before counts.
    void join(std::uint64_t instance);
    void on(StageInput input);
    // `progress` rises with whatever of tensors arrives.
    void tick(std::uint64_t progress);
    // A signal asks this device to leave: its layers are handed over first. To be told again at
    // every turn.
    void leave(const std::string& signal);

    // What `work` would run; nothing while the stage waits.
    struct NextAction {
        std::uint64_t step = 0;
        MicroBatchId micro_batch;
    };
    [[nodiscard]] std::optional<NextAction> next_action() const;
    void work();

    [[nodiscard]] const std::optional<StageEnd>& ended() const { return ended_; }
    [[nodiscard]] bool welcomed() const { return welcomed_; }
    // For people, and for tests.
    [[nodiscard]] const StageMachine& machine() const { return machine_; }

  private:
    using ControlMessage = stage_input::Message;
    struct GivingUp {  // told to the portal, which tells everyone
        Error error;
        Instant until;
    };
    struct Held {  // outputs of an evaluation that wait for room
        SliceRole role;
        SliceId slice;
        MicroBatchId micro_batch;
        std::vector<EncodedTensor> outputs;
    };

    void handle(ControlMessage& message);
    void handle(Delivery& delivery);
    void handle(stage_input::PeerAttached& attached);
    void handle(stage_input::RoomMade&);
    void handle(stage_input::PortalLost& lost);
    [[nodiscard]] Result<void> obey_portal(ControlMessage& message);
    [[nodiscard]] Result<void> configure(const FrameHeader& head, const Configure& configure);
    [[nodiscard]] Result<void> begin(const FrameHeader& head, const Begin& begin);
    [[nodiscard]] Result<void> deliver(Delivery delivery);
    [[nodiscard]] Result<void> deliver_local();
    // What the machine says to an event is carried out before anything else is.
    [[nodiscard]] Result<void> feed(const StageEvent& event);
    [[nodiscard]] Result<void> carry_out(StageCommand& command);
    void prepend(StageCommands commands);
    [[nodiscard]] Result<void> run_action(const stage_command::Run& run);
    [[nodiscard]] Result<void> finish_action();
    // Within an action: the layer's own sums may be final, and others' may have come.
    [[nodiscard]] Result<void> exchange_sums(int layer);
    // Once all sums of the step are there the machine is told, once.
    [[nodiscard]] StageCommands sums_if_complete();
    // Before a training step.
    void follow_memory();
    void report_step();
    void take_snapshot(std::uint64_t step);
    void send_stored(std::uint64_t step, int layer);
    void send_state(bool optimizer_state);
    [[nodiscard]] Result<void> check_loading(std::uint64_t progress);
    [[nodiscard]] FrameHeader header() const;
    [[nodiscard]] RoutedStep routed_step() const {
        return {machine_.generation(), machine_.step()};
    }
    void give_up_on(const Result<void>& done);  // if it is an error
    void end(Result<ExitCode> result, bool taken_for_lost = false);

    const StageIdentity identity_;
    Parts parts_;
    StageMachine machine_;
    StagePeers peers_;
    TensorRouter router_;
    StateExchange state_;
    TiedExchange ties_;
    SumExchange sums_;
    LinkProber prober_;
    MemoryControl memory_;

    std::uint64_t instance_ = 0;
    bool welcomed_ = false;
    std::optional<WatchedDeadline> join_deadline_;
    std::optional<WatchedDeadline> leaving_;
    std::optional<GivingUp> giving_up_;
    std::optional<StageEnd> ended_;

    Configure work_;  // in force
    bool configured_ = false;
    Plan plan_;
    ValueGraph flow_;
    PlanIndex index_;

    std::deque<StageCommand> commands_;  // to be carried out
    std::optional<stage_command::Run> next_;
    std::optional<Held> held_;
    MicroBatchId micro_batch_;  // of the action at hand
    bool sums_told_ = false;    // of the step under way
    StepReport report_;         // likewise
    double update_ms_ = 0;
    StepMode mode_before_ = StepMode::kTrain;  // of the step begun last
};

}  // namespace ecopipe
