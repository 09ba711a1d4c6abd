#pragma once
// One run on a cluster of devices: waits for them to join, gives them their layers, steps them. The
// adapter of SessionMachine to sockets; a TrainingEngine to the trainer.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "domain/plan.h"
#include "domain/plan_index.h"
#include "orchestrator/cluster_planner.h"
#include "orchestrator/drift.h"
#include "orchestrator/membership.h"
#include "orchestrator/reachability.h"
#include "orchestrator/session_machine.h"
#include "orchestrator/session_observer.h"
#include "orchestrator/training_engine.h"
#include "stage_runtime/model/models.h"
#include "stage_runtime/state_keeper.h"
#include "transport/security.h"
#include "transport/stranger_log.h"

namespace ecopipe {

struct LostProcess {
    std::string device;
    std::string how;
};

struct SessionOptions {
    Endpoint bind;
    std::vector<std::string> devices;  // of the cluster: who may join
    std::string portal_device;         // the portal's own, which is never left out
    std::map<std::string, std::string>
        data_address;  // where a device's data port is reached, if the file says
    std::map<std::string, EmulatedLink> links;  // emulated links of the portal's own traffic
    bool shared_machine = false;  // all devices are processes of one machine and share its cores
    Security security;            // which addresses of data ports may be dialled
    double peer_timeout_s = 5;    // the longest silence before a device is lost
    // Asked at every turn of a wait: an error ends it (a child process died, a signal came).
    std::function<Result<void>()> check;
    // Asked likewise: processes that have ended by themselves since the last time.
    std::function<std::vector<LostProcess>()> ended_processes;
    // How long to wait for devices when those that are left cannot hold the model.
    double rejoin_timeout_s = 60;
    SessionObserver* observer =
        nullptr;  // told what happens, if there is one; outlives the session
};

// A device that has joined.
struct JoinedDevice {
    Hello hello;
    std::string data_endpoint;
};

// What every stage is told about the training.
struct TrainingSpec {
    ModelSpec model;
    std::uint64_t seed = 0;
    OptimizerSpec optimizer;
    LossSpec loss;
};

class ClusterSession : public TrainingEngine {
  public:
    [[nodiscard]] static Result<std::unique_ptr<ClusterSession>> open(NetLoop& loop,
                                                                      SessionOptions options);
    ~ClusterSession() override;

    [[nodiscard]] const Endpoint& bound() const { return bound_; }  // with the port really taken
    // Waits until `wanted` have joined or `patience` is over; `on_change` is told who is missing,
    // at first and whenever that changes.
    [[nodiscard]] Result<void> wait_for(
        const std::set<std::string>& wanted, Duration patience,
        const std::function<void(const std::vector<std::string>& missing)>& on_change);
    [[nodiscard]] const std::map<std::string, JoinedDevice>& joined() const { return joined_; }
    // Makes one joined device measure its link to another, while neither has work.
    [[nodiscard]] Result<LinkProbed> probe_link(const std::string& from, const std::string& to);
    // Sets the plan that `load` brings into force.
    void set_plan(Plan plan, TrainingSpec spec, ModelInfo info);
    // Without one, a lost device ends the run.
    void set_planner(std::unique_ptr<ClusterPlanner> planner) { planner_ = std::move(planner); }
    [[nodiscard]] const Plan& plan() const { return plan_; }  // in force
    // How its replicas are kept; meaningful after load.
    [[nodiscard]] const ReplicaPlan& replicas() const { return replicas_; }

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
    void end(ExitCode code, const std::string& reason) override;

  private:
    ClusterSession(NetLoop& loop, SessionOptions options);
    // Handles events until `finished` (true), the cluster is broken (false) or the patience is
    // over; the error of what cannot be recovered from or of the check.
    Result<bool> pump(const std::function<bool()>& finished, Duration patience,
                      const std::string& doing);
    // The same, and recovers when broken; false when it did: the caller's work is void.
    Result<bool> pump_or_recover(const std::function<bool()>& finished, Duration patience,
                                 const std::string& doing);
    Result<void> handle(PortalEvent& event);
    Result<void> handle_message(portal_event::Message& message);
    Result<void> absorb(SessionOutcomes outcomes);
    Result<void> check_processes();
    void send_configure(const session_outcome::SendConfigure& work);
    void supply_attached();
    // Who cannot reach whom is told by both ends, one after the other: once all have spoken, the
    // ones that the others train better without are left out, and the configuration is broken off.
    Result<void> settle_unreached();
    // A device came, went, or is another process now: what was known of its channels is void.
    void forget_unreached(const std::string& device);
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
    [[nodiscard]] double bytes_to_move(const Plan& to) const;
    void note_event(OrderedJson what, Instant since);
    template <class Tell>
    void observe(Tell&& tell) {
        if (options_.observer != nullptr) tell(*options_.observer);
    }
    [[nodiscard]] std::set<std::string> usable() const;  // joined, not about to leave, not left out
    [[nodiscard]] bool has_part(const std::string& device) const;
    [[nodiscard]] bool attached(const std::string& device) const;  // to the portal, as it is now
    [[nodiscard]] Result<void> index_base(const TensorMap& state, std::uint64_t step);
    [[nodiscard]] Configure configuration(const session_outcome::SendConfigure& work) const;
    Result<bool> send_when_room(const std::string& device, TensorAddress address,
                                HostTensor tensor);
    [[nodiscard]] TensorAddress address(TensorKind kind, std::uint64_t step,
                                        std::uint32_t micro_batch) const;
    [[nodiscard]] FrameHeader header(std::uint64_t step) const;

    SessionOptions options_;
    std::unique_ptr<ClusterPlanner> planner_;
    std::uint64_t run_;
    Inbox<PortalEvent> inbox_;
    StrangerLog odd_messages_;
    NetLoop& loop_;
    std::unique_ptr<Membership> members_;
    std::unique_ptr<DataPlane> data_;
    Endpoint bound_;
    SessionMachine machine_{std::vector<int>{}};
    std::map<std::string, JoinedDevice> joined_;
    std::map<std::string, std::uint64_t> attached_;  // the other end's instance
    std::set<std::string> leaving_;
    std::set<UnreachedPair> unreached_;       // of devices that have joined
    std::optional<Instant> unreached_since_;  // told, and not settled yet
    std::set<std::string> left_out_;          // joined, but others do not reach it, or it them
    std::optional<LinkProbed> probed_;
    Plan plan_;
    TrainingSpec spec_;
    ModelInfo info_;
    ReplicaPlan replicas_;
    std::map<int, double> layer_bytes_;
    PlanIndex index_;                   // of the plan
    std::set<std::string> configured_;  // devices of the configuration under way
    std::map<int, TensorMap> base_;     // what the portal itself can give
    std::uint64_t base_step_ = 0;
    StateKeeper replicas_here_;  // of a lone device
    std::optional<session_outcome::SupplyFromPortal> supply_;
    std::optional<std::uint64_t> ready_;
    Begin begin_;
    Commit commit_;
    Fetch fetch_;
    std::uint64_t step_ = 0;        // begun
    std::uint64_t state_step_ = 0;  // that all have, or will have once they have committed
    std::uint64_t last_step_ = 0;
    std::optional<session_outcome::AllDone> done_;
    std::map<std::string, std::vector<ActionTime>>
        traced_;  // of the step begun, but for its Done's
    std::optional<std::uint32_t> fetched_;
    std::vector<NamedTensor> fetched_state_;
    std::vector<session_outcome::Broken> failures_;  // since the last recovery
    Instant failed_at_{};
    std::uint32_t course_ = 0;    // loads so far
    std::uint64_t furthest_ = 0;  // the newest state of this course that all have had
    int breaks_ = 0;              // since then
    std::optional<std::uint64_t> rewound_;
    std::vector<ClusterEvent> events_;
    double moved_bytes_ = 0;  // by the last configuration
    DriftDetector drift_;
    Slowness slowness_;
    std::vector<std::string> reasons_to_move_;
    bool must_move_ = false;
    bool came_back_ = false;  // somebody has joined since the flag was cleared
    std::uint64_t next_move_step_ = 0;
    bool ended_ = false;
};

}  // namespace ecopipe
