#pragma once
// One run on a cluster of devices, as the portal decides it: gives them their layers, steps them,
// goes back with them when something fails, moves layers when that pays. Without sockets and
// clocks: ClusterSession owns those, the simulated cluster others. A TrainingEngine to the trainer.
//
// Each call waits by itself, by asking its side for the next event until what it wants has come
// about; so it can be read from top to bottom. The machine (session_machine.h) says what is sent
// and what has come about, the roster who is here, the policy when to move.

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "domain/loss.h"
#include "domain/model_spec.h"
#include "domain/optimizer_spec.h"
#include "domain/plan.h"
#include "domain/plan_index.h"
#include "orchestrator/session/cluster_planner.h"
#include "orchestrator/session/device_roster.h"
#include "orchestrator/session/move_policy.h"
#include "orchestrator/session/portal_side.h"
#include "orchestrator/session/session_machine.h"
#include "orchestrator/session/session_observer.h"
#include "orchestrator/session/state_depot.h"
#include "orchestrator/session/training_engine.h"
#include "transport/data/tensor_channels.h"
#include "transport/net/stranger_log.h"

namespace ecopipe {

inline constexpr auto kPortalTick = std::chrono::milliseconds(50);  // how often a wait looks about

// For answers of devices: liveness ends a dead wait far earlier.
inline constexpr auto kAnswersWait = std::chrono::minutes(60);

// What every stage is told about the training.
struct TrainingSpec {
    ModelSpec model;
    std::uint64_t seed = 0;
    OptimizerSpec optimizer;
    LossSpec loss;
};

struct PortalOptions {
    std::string portal_device;  // the portal's own, which is never left out
    std::map<std::string, std::string>
        data_address;             // where a device's data port is reached, if the file says
    bool shared_machine = false;  // all devices are processes of one machine and share its cores
    // How long to wait for devices when those that are left cannot hold the model.
    double rejoin_timeout_s = 60;
    MoveOptions moves;
    SessionObserver* observer = nullptr;  // told what happens, if there is one; outlives the driver
};

class PortalDriver : public TrainingEngine {
  public:
    // `side` outlives the driver.
    PortalDriver(PortalSide& side, PortalOptions options);

    // Sends tensors and hears of them: to be set before anything else, and to outlive all calls.
    void set_channels(TensorChannels& channels) { channels_ = &channels; }
    void set_join_address(std::string address) { join_address_ = std::move(address); }
    // Waits until `wanted` have joined or `patience` is over; `on_change` is told who is missing,
    // at first and whenever that changes.
    [[nodiscard]] Result<void> wait_for(
        const std::set<std::string>& wanted, Duration patience,
        const std::function<void(const std::vector<std::string>& missing)>& on_change);
    [[nodiscard]] const std::map<std::string, JoinedDevice>& joined() const {
        return roster_.joined();
    }
    // Makes one joined device measure its link to another, while neither has work.
    [[nodiscard]] Result<LinkProbed> probe_link(const std::string& from, const std::string& to);
    // Sets the plan that `load` brings into force. Before the first load alone: generations go on.
    void set_plan(Plan plan, TrainingSpec spec, ModelInfo info);
    // Without one, a lost device ends the run.
    void set_planner(std::unique_ptr<ClusterPlanner> planner) { planner_ = std::move(planner); }
    [[nodiscard]] const Plan& plan() const { return plan_; }  // in force
    // How its replicas are kept; meaningful after load.
    [[nodiscard]] const ReplicaPlan& replicas() const { return replicas_; }
    std::map<std::string, MemoryByUse> peak_memory() const override { return peaks_; }
    // For people, and for tests.
    [[nodiscard]] const SessionMachine& machine() const { return machine_; }

    Result<void> load(const TensorMap& state, std::uint64_t step = 0) override;
    Result<void> start_step(std::uint64_t step, std::vector<Batch> micro_batches,
                            double loss_divisor, bool trace) override;
    Result<StepOutcome> finish_step() override;
    Result<void> commit(double learning_rate, double gradient_scale) override;
    Result<LossTotals> evaluate(const Dataset& data, int batch, int readers) override;
    Result<TensorMap> state(bool optimizer_state) override;
    std::optional<std::uint64_t> take_rewind() override;
    std::vector<ClusterEvent> take_events() override;
    Result<void> set_base(const TensorMap& state, std::uint64_t step) override;
    void train_until(std::uint64_t step) override { last_step_ = step; }
    // Tells every device; nothing may be asked of the driver afterwards.
    void end(ExitCode code, const std::string& reason) override;

  private:
    using Condition = std::function<bool()>;
    // Handles events until `finished` (true), the cluster is broken (false) or the patience is
    // over; the error of what cannot be recovered from or of the check.
    Result<bool> pump(const Condition& finished, Duration patience, const std::string& doing);
    // The same, and recovers when broken; false when it did: the caller's work is void.
    Result<bool> pump_or_recover(const Condition& finished, Duration patience,
                                 const std::string& doing);
    // All that waits is handled.
    Result<void> drain();
    Result<void> check_processes();
    void progressed();
    Result<void> handle(PortalEvent& event);
    Result<void> on_event(portal_event::Joined& joined);
    Result<void> on_event(portal_event::Lost& lost);
    Result<void> on_event(portal_event::Attached& attached);
    Result<void> on_event(portal_event::RoomMade&) { return {}; }  // who waits looks
    Result<void> on_event(portal_event::Stalled& stalled);
    Result<void> on_event(Delivery& delivery);
    Result<void> on_event(portal_event::Message& message);
    Result<void> on_leave(const std::string& device, const Leave& leave);
    void on_memory(const std::string& device, const MemoryMoved& moved);
    Result<void> on_failed(const std::string& device, const FrameHeader& head,
                           const Failed& failed);
    // Tells the machine, and does what it says.
    Result<void> feed(const SessionEvent& event);
    Result<void> carry_out(SessionOutcome& outcome);
    // The device as it has joined, as far as that was told here.
    void tell(const std::string& device, const FrameHeader& head, PortalMessage message);
    template <class Message>
    void send_to(const std::vector<std::string>& devices, const FrameHeader& head,
                 const Message& message);
    void send_configure(const session_outcome::SendConfigure& work);
    [[nodiscard]] Configure configuration(const session_outcome::SendConfigure& work) const;
    // What the portal gives waits for the channel to stand.
    void supply_attached();
    // Who cannot reach whom is told by both ends, one after the other: once all have spoken, the
    // ones that the others train better without are left out, and the configuration is broken off.
    Result<void> settle_unreached();
    // With keys: every device is told the others', so that they let one another in.
    void introduce_all();
    // A device that failed or leaves is told the end and forgotten.
    Result<void> dismiss(const std::string& device, ExitCode code, const std::string& reason);
    // Brings a plan into force; false when that broke.
    Result<bool> configure(Plan plan, const std::string& cause);
    Result<Plan> plan_over_present();
    // Waits until all have applied the step that was committed last; false as above.
    Result<bool> all_committed();
    // Everything is given up and all go back to the newest common state, on whoever is left.
    Result<void> recover();
    // Between steps: devices came, leave, or changed their speed.
    Result<void> consider_move(std::uint64_t step);
    [[nodiscard]] double bytes_to_move(const PlanIndex& to) const;
    void note_event(OrderedJson what, Instant since);
    template <class Tell>
    void observe(Tell&& tell) {
        if (options_.observer != nullptr) tell(*options_.observer);
    }
    [[nodiscard]] bool has_part(const std::string& device) const;
    void note_memory(const std::string& device, const MemoryByUse& peak);
    // False when the cluster broke meanwhile.
    Result<bool> send_when_room(const std::vector<std::string>& devices, TensorAddress address,
                                const HostTensor& tensor);
    // Each of the batch's inputs to whoever takes it.
    [[nodiscard]] Result<void> send_inputs(TensorKind kind, std::uint64_t step,
                                           std::uint64_t micro_batch, const Batch& batch);
    [[nodiscard]] TensorAddress address(TensorKind kind, std::uint64_t step,
                                        std::uint64_t micro_batch) const;
    [[nodiscard]] FrameHeader header(std::uint64_t step) const;

    PortalSide& side_;
    PortalOptions options_;
    TensorChannels* channels_ = nullptr;
    std::string join_address_;
    std::unique_ptr<ClusterPlanner> planner_;
    StrangerLog odd_messages_;
    SessionMachine machine_{std::vector<int>{}};
    DeviceRoster roster_;
    StateDepot depot_;
    MovePolicy moves_;

    Plan plan_;
    ValueGraph flow_;  // what the model's layers hand one another
    PlanIndex index_;  // of the plan
    TrainingSpec spec_;
    ReplicaPlan replicas_;
    std::uint32_t course_ = 0;          // loads so far
    std::set<std::string> configured_;  // devices of the configuration under way
    std::optional<session_outcome::SupplyFromPortal> supply_;
    std::optional<std::uint64_t> ready_;
    double moved_bytes_ = 0;  // by the last configuration
    std::optional<LinkProbed> probed_;

    std::uint64_t step_ = 0;        // begun
    std::uint64_t state_step_ = 0;  // that all have, or will have once they have committed
    std::uint64_t last_step_ = 0;
    Begin begin_;
    Commit commit_;
    Fetch fetch_;
    std::map<std::string, MemoryByUse> peaks_;  // so far
    std::optional<session_outcome::AllDone> done_;
    std::map<std::string, std::vector<ActionTime>>
        traced_;                                  // of the step begun, but for its Done's
    std::map<std::uint32_t, LossTotals> losses_;  // likewise, of micro-batches of twins

    std::vector<session_outcome::Broken> failures_;  // since the last recovery
    Instant failed_at_{};
    std::uint64_t furthest_ = 0;  // the newest state of this course that all have had
    int breaks_ = 0;              // since then
    std::optional<std::uint64_t> rewound_;
    std::vector<ClusterEvent> events_;
    bool came_back_ = false;  // somebody has joined since the flag was cleared
};

}  // namespace ecopipe
