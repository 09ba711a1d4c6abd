#pragma once
// A portal and its stages on a simulated network: the real trainer, state machines, messages and
// codecs, with the adapters' sockets, torch and clocks replaced. What is checked while it runs:
// every state that a stage has after an update is the one that a single process has after that
// step.

#include <fmt/format.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "orchestrator/liveness.h"
#include "orchestrator/session_machine.h"
#include "orchestrator/training_engine.h"
#include "stage_runtime/stage_machine.h"
#include "stage_runtime/state_keeper.h"
#include "tests/sim/toy_model.h"
#include "transport/codec.h"
#include "transport/sim_network.h"

namespace ecopipe::sim {

// Mistakes put into the adapters on purpose: the checks must notice each.
enum class Mistake {
    kNone,
    kCommitWithoutAllAcks,     // the portal makes up the Done of whoever has not answered
    kReplicaOneStepOld,        // a buddy is given the state of the step before
    kOldGenerationAccepted,    // messages of a plan that is no longer in force count
    kConfirmedWithoutReplica,  // a buddy confirms what it has not got yet
};

// What all parts of one run share.
struct World {
    SimNetwork& net;
    const std::vector<ToyStates>& reference;  // of the undisturbed run, before each step
    Mistake mistake = Mistake::kNone;
    Instant end{};  // nothing takes longer
    std::vector<std::string> violations{};
    void violate(const std::string& what) { violations.push_back(what); }
    [[nodiscard]] bool is_state(std::uint64_t step, int layer, std::uint64_t state) const {
        return step < reference.size() && reference[step].at(layer) == state;
    }
    bool traced = false;  // ECOPIPE_SIM_TRACE=1: what happens, on stdout
    template <class... Values>
    void trace(fmt::format_string<Values...> text, Values&&... values) const {
        if (traced)
            fmt::print("{:9.3f} {}\n", to_ms(net.now().time_since_epoch()) / 1000,
                       fmt::format(text, std::forward<Values>(values)...));
    }
};

class SimStage {
  public:
    SimStage(World& world, std::string name);
    void start();  // a new process
    void hang_compute() { compute_hangs_ = true; }
    [[nodiscard]] bool hangs() const { return compute_hangs_ && computing_since_; }
    void ask_to_leave();  // SIGTERM
    [[nodiscard]] const std::string& name() const { return name_; }

  private:
    void join();
    void say_hello(std::uint64_t attempt);
    void watch_portal(std::uint64_t attempt);
    void on_message(const SimMessage& message);
    void on_control(const FrameHeader& head, const SimMessage& message);
    void on_data(const FrameHeader& head, const SimMessage& message);
    void take_tensor(const std::string& peer, TensorAddress address, HostTensor tensor);
    void configure(const FrameHeader& head, const Configure& work);
    void dial(const std::string& peer, std::uint64_t instance, std::uint64_t attempt);
    void obey(StageCommands commands);
    void run(const stage_command::Run& run);
    void finish_action();
    void send_layer(const std::string& to, TensorKind kind, std::uint64_t step, int layer,
                    const TensorMap& tensors);
    void send_tensor(const std::string& to, TensorAddress address, HostTensor tensor);
    template <class Message>
    void send(const std::string& to, FrameHeader head, const Message& message,
              std::string payload = {});
    [[nodiscard]] FrameHeader header() const;
    [[nodiscard]] ToySlice& slice_with(int layer);

    World& world_;
    std::string name_;
    std::uint64_t attempt_ = 0;  // of joining; what belongs to an earlier one is void
    std::uint64_t instance_ = 0;
    std::uint64_t run_ = 0;
    bool welcomed_ = false;
    Instant heard_{};
    StageMachine machine_;
    StateKeeper keeper_;
    Plan plan_;
    std::vector<ToySlice> slices_;
    std::map<TensorAddress, HostTensor> tensors_;
    std::vector<std::tuple<std::string, TensorAddress, HostTensor>> early_;
    std::map<std::string, std::uint64_t> attached_;  // the other end's instance
    std::map<std::string, std::uint64_t> wanted_;
    std::string buddy_;
    std::uint64_t progress_ = 0;
    std::optional<Instant> computing_since_;
    std::uint32_t micro_batch_ = 0;
    std::map<std::uint32_t, std::uint64_t> values_of_loss_;
    std::map<int, TensorMap> before_;  // for a mistake only
    Done done_;                        // of the step under way
    bool compute_hangs_ = false;
};

// What the trainer sees of the cluster. Each call runs the simulated world until it has come to an
// end; an error: the portal's process has been killed meanwhile, or nothing moves any more.
class SimPortal : public TrainingEngine {
  public:
    SimPortal(World& world, std::set<std::string> devices);
    void start();
    [[nodiscard]] std::uint64_t recoveries() const { return recoveries_; }

    Result<void> load(const TensorMap& state, std::uint64_t step) override;
    Result<void> start_step(std::uint64_t step, std::vector<Batch> micro_batches, double,
                            bool) override;
    Result<StepOutcome> finish_step() override;
    Result<void> commit(double, double) override;
    Result<LossTotals> evaluate(const Dataset& data, int batch, int readers) override;
    Result<TensorMap> state(bool) override;
    std::optional<std::uint64_t> take_rewind() override {
        return std::exchange(rewound_, std::nullopt);
    }
    Result<void> set_base(const TensorMap& state, std::uint64_t step) override;
    void end(ExitCode, const std::string&) override {}

  private:
    struct Member {
        std::uint64_t connection = 0;
        std::uint64_t instance = 0;
        bool leaving = false;
    };
    void tick();
    void on_message(const SimMessage& message);
    void on_hello(const SimMessage& message);
    void on_data(const FrameHeader& head, const SimMessage& message);
    void lose(const std::string& device, const std::string& how);
    void absorb(SessionOutcomes outcomes);
    void configure(const std::string& cause);
    void dial(const std::string& device, std::uint64_t instance);
    void supply_attached();
    void feed(bool evaluation, std::uint32_t micro_batch, const Batch& batch);
    void progress();
    // True once `done`; false when all have gone back to an earlier state instead.
    [[nodiscard]] Result<bool> run_until(const std::function<bool()>& done);
    [[nodiscard]] Result<bool> all_committed();
    // Between steps: devices came or go. False when all have gone back.
    [[nodiscard]] Result<bool> move_if_due(std::uint64_t step);
    template <class Message>
    void send(const std::string& to, FrameHeader head, const Message& message,
              std::string payload = {});
    [[nodiscard]] FrameHeader header(std::uint64_t step) const;

    World& world_;
    std::set<std::string> devices_;
    std::uint64_t run_ = 0;
    SessionMachine machine_{kStatefulLayers};
    Liveness liveness_;
    std::map<std::string, Member> members_;
    std::map<std::string, std::uint64_t> attached_;
    std::optional<session_outcome::SupplyFromPortal> to_supply_;
    ToyStates base_;  // what the portal itself can give
    std::uint64_t base_step_ = 0;
    Plan plan_;
    bool gathering_ = true;  // until somebody is there to plan over
    Instant gather_until_{};
    std::uint64_t step_ = 0;            // begun, or of the state that all have
    std::vector<std::uint32_t> parts_;  // samples of the micro-batches begun
    bool broken_ = false;               // and not recovered yet
    bool member_change_ = false;
    bool configure_soon_ = false;
    std::optional<std::uint64_t> ready_;
    std::optional<std::uint64_t> rewound_;
    std::optional<session_outcome::AllDone> done_;
    std::map<int, std::map<std::size_t, NamedTensor>> fetched_;
    std::optional<std::uint32_t> fetched_count_;
    std::uint64_t recoveries_ = 0;
};

}  // namespace ecopipe::sim
