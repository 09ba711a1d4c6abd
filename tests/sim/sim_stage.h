#pragma once
// A stage on a simulated network: the real driver, with sockets, torch and clock replaced. What is
// checked while it runs: every state that it has after an update, or loads, is the one that a
// single process has after that step.

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "stage_runtime/stage/portal_contact.h"
#include "stage_runtime/stage/stage_driver.h"
#include "tests/sim/sim_channels.h"
#include "tests/sim/world.h"

namespace ecopipe::sim {

class ToyCompute : public StageCompute {
  public:
    ToyCompute(World& world, std::string name) : world_(world), name_(std::move(name)) {}
    void takes(Duration time) { takes_ = time; }  // the next action did
    // Of the step before the last commit.
    [[nodiscard]] const std::map<int, TensorMap>& before() const { return before_; }

    Result<ValueGraph> prepare(const Configure& work, const Plan& plan,
                               std::span<const StageId> slices) override;
    void clear() override { slices_.clear(); }
    void discard() override {}
    std::map<int, TensorMap> layer_states() const override;
    Result<void> load(int layer, const TensorMap& state) override;
    void recompute(const Segments&) override {}
    void begin(std::uint64_t step, const Begin& begin) override;
    Result<ComputeResult> run(ComputeJob job) override;
    HostTensor tied_gradient(SliceId slice, const TiedUse& use) override;
    void add_tied_gradient(SliceId slice, const TiedUse& use, const HostTensor& gradient) override;
    HostTensor tied_weight(SliceId slice, const TiedUse& use) override;
    Result<void> set_tied_weight(SliceId slice, const TiedUse& use,
                                 const HostTensor& weight) override;
    StageSums sums() const override;
    LayerGradient take_sum(int layer, int node) override {
        return slices_.front().take_sum(layer, node);
    }
    Result<void> add_sum(int layer, int node, const LayerGradient& sum) override;
    LayerGradient total(int layer) override { return slices_.front().total(layer); }
    Result<void> set_total(int layer, const LayerGradient& total) override;
    HostTensor statistics(MicroBatchId micro_batch) const override {
        return slices_.front().statistics(micro_batch.value);
    }
    Result<void> add_statistics(MicroBatchId micro_batch, const HostTensor& found) override;
    StepTotals finish_step() override;
    void commit(const Commit& commit) override;
    TensorMap state(SliceId slice, bool optimizer_state) const override;
    std::size_t live_bytes() const override { return 0; }
    MemoryByUse take_peak_memory() override { return {}; }

  private:
    World& world_;
    std::string name_;
    std::vector<ToySlice> slices_;
    std::uint64_t step_ = 0;
    std::map<std::uint32_t, LossTotals> losses_;
    std::map<std::uint32_t, std::uint64_t> values_of_loss_;
    std::map<int, TensorMap> before_;
    Duration takes_{};
};

class SimStage : public StageUplink, private ContactSide {
  public:
    SimStage(World& world, std::string name);
    void start();                                              // a new process
    void hang_compute(bool hangs) { compute_hangs_ = hangs; }  // from its next action on
    [[nodiscard]] bool hangs() const { return compute_hangs_ && computing_; }
    void slow_down(double times) { slowdown_ = times; }  // its actions take so many times as long
    void ask_to_leave() { asked_to_leave_ = true; }      // SIGTERM
    // Killed after it has applied that step, before it says so.
    void die_at_commit(std::uint64_t step) { die_at_commit_ = step; }
    // Killed so many times before it says that it has done a step, each step; it comes back.
    void die_in_each_step(std::uint64_t times) { deaths_a_step_ = times; }
    // Says of a layer before another stage's what its owner did not, as whoever has a key might.
    void forge_activation(const SimStage& to);
    [[nodiscard]] const std::string& name() const { return name_; }

    void send(const FrameHeader& header, StageMessage message) override;

  private:
    void join();
    void die();
    void keep_contact(std::uint64_t attempt);
    void watch(std::uint64_t attempt);
    void on_message(const SimMessage& message);

    void send(const FrameHeader& header, const std::string& body) override;
    void hand_over(const FrameHeader& header, std::vector<std::byte> body) override;
    void introduce(const Introduce&) override {}
    void portal_lost(Error error) override { push(stage_input::PortalLost{std::move(error)}); }

    void push(StageInput input);
    // Unless the one thread computes: takes what has come, begins what there is to do.
    void turn();
    void begin_work();
    void end_run();

    World& world_;
    std::string name_;
    ComputeActivity activity_;
    PortalContact contact_;
    SimChannels channels_;
    ToyCompute compute_;
    StageDriver driver_;
    std::uint64_t attempt_ = 0;  // of joining; what belongs to an earlier one is void
    std::uint64_t instance_ = 0;
    std::deque<StageInput> inbox_;
    bool computing_ = false;
    bool compute_hangs_ = false;
    bool asked_to_leave_ = false;
    double slowdown_ = 1;
    std::optional<std::uint64_t> die_at_commit_;
    std::uint64_t deaths_a_step_ = 0;
    std::map<std::uint64_t, std::uint64_t> deaths_;  // by step
};

}  // namespace ecopipe::sim
