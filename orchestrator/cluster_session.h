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

#include "orchestrator/membership.h"
#include "orchestrator/session_machine.h"
#include "orchestrator/training_engine.h"
#include "planner/plan.h"
#include "stage_runtime/model/model_spec.h"

namespace ecopipe {

struct SessionOptions {
    Endpoint bind;
    std::vector<std::string> devices;  // of the cluster: who may join
    std::map<std::string, std::string>
        data_address;  // where a device's data port is reached, if the file says
    std::map<std::string, EmulatedLink> links;  // emulated links of the portal's own traffic
    double peer_timeout_s = 5;                  // silence after which a device is lost
    // Asked at every turn of a wait: an error ends it (a child process died, a signal came).
    std::function<Result<void>()> check;
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
    std::string loss = "cross_entropy";
};

class ClusterSession : public TrainingEngine {
  public:
    [[nodiscard]] static Result<std::unique_ptr<ClusterSession>> open(NetLoop& loop,
                                                                      SessionOptions options);
    ~ClusterSession() override;

    [[nodiscard]] const Endpoint& bound() const { return bound_; }  // with the port really taken
    // Waits until `wanted` have joined or the deadline passes; `on_change` is told who is missing,
    // at first and whenever that changes.
    [[nodiscard]] Result<void> wait_for(
        const std::set<std::string>& wanted, Instant deadline,
        const std::function<void(const std::vector<std::string>& missing)>& on_change);
    [[nodiscard]] const std::map<std::string, JoinedDevice>& joined() const { return joined_; }
    // Sets the plan that `load` brings into force.
    void set_plan(Plan plan, TrainingSpec spec, ModelInfo info);
    [[nodiscard]] const Plan& plan() const { return plan_; }

    Result<void> load(const TensorMap& state) override;
    Result<void> start_step(std::uint64_t step, std::vector<Batch> micro_batches,
                            double loss_divisor, bool trace) override;
    Result<StepOutcome> finish_step() override;
    Result<void> commit(double learning_rate, double gradient_scale) override;
    Result<LossSum> evaluate(const Dataset& data, int batch) override;
    Result<TensorMap> state(bool optimizer_state) override;
    void end(ExitCode code, const std::string& reason) override;

  private:
    ClusterSession(NetLoop& loop, SessionOptions options);
    // Handles events until `finished` or the deadline; the error of a failure or of the check.
    Result<void> pump(const std::function<bool()>& finished, Instant deadline,
                      const std::string& doing);
    Result<void> handle(PortalEvent& event);
    Result<void> handle_message(portal_event::Message& message);
    Result<void> absorb(SessionOutcomes outcomes);
    Result<void> connect_data_channels();
    [[nodiscard]] Configure configuration(const std::string& device,
                                          std::size_t state_tensors) const;
    void send_state(const TensorMap& state);
    template <class Body>
    void send_all(FrameHeader header, const Body& body) {
        for (const std::string& device : devices_)
            static_cast<void>(members_->send(device, header, body));
    }
    Result<void> send_when_room(const std::string& device, TensorAddress address,
                                HostTensor tensor);
    [[nodiscard]] TensorAddress address(TensorKind kind, std::uint64_t step,
                                        std::uint32_t micro_batch) const;
    [[nodiscard]] FrameHeader header(std::uint64_t step) const;

    SessionOptions options_;
    std::uint64_t run_;
    Inbox<PortalEvent> inbox_;
    NetLoop& loop_;
    std::unique_ptr<Membership> members_;
    std::unique_ptr<DataPlane> data_;
    Endpoint bound_;
    SessionMachine machine_;
    std::map<std::string, JoinedDevice> joined_;
    std::set<std::string> attached_;
    Plan plan_;
    TrainingSpec spec_;
    ModelInfo info_;
    std::vector<std::string> devices_;  // of the plan
    std::uint32_t generation_ = 0;
    bool ready_ = false;
    std::uint64_t step_ = 0;
    std::optional<session_outcome::AllDone> done_;
    std::optional<std::uint32_t> fetched_;
    std::vector<NamedTensor> fetched_state_;
    bool ended_ = false;
};

}  // namespace ecopipe
