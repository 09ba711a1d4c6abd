#pragma once
// What a stage computes with, by the engine: an executor a slice, emulating a slower device when
// asked to.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "stage_runtime/engine/run/executor.h"
#include "stage_runtime/stage/stage_compute.h"

namespace ecopipe {

class TorchCompute : public StageCompute {
  public:
    // `models_directory`: where TorchScript files may be loaded from. `slowdown`: asked at every
    // action; above 1 it takes so many times its CPU time.
    TorchCompute(std::string models_directory, std::function<double()> slowdown)
        : models_directory_(std::move(models_directory)), slowdown_(std::move(slowdown)) {}

    Result<ValueGraph> prepare(const Configure& work, const Plan& plan,
                               std::span<const StageId> slices) override;
    void clear() override { slices_.clear(); }
    void discard() override;
    std::map<int, TensorMap> layer_states() const override;
    Result<void> load(int layer, const TensorMap& state) override;
    void recompute(const Segments& segments) override;
    void begin(std::uint64_t step, const Begin& begin) override;
    Result<ComputeResult> run(ComputeJob job) override;
    HostTensor tied_gradient(SliceId slice, const TiedUse& use) override;
    void add_tied_gradient(SliceId slice, const TiedUse& use, const HostTensor& gradient) override;
    HostTensor tied_weight(SliceId slice, const TiedUse& use) override;
    Result<void> set_tied_weight(SliceId slice, const TiedUse& use,
                                 const HostTensor& weight) override;
    StageSums sums() const override;
    LayerGradient take_sum(int layer, int node) override;
    Result<void> add_sum(int layer, int node, const LayerGradient& sum) override;
    LayerGradient total(int layer) override;
    Result<void> set_total(int layer, const LayerGradient& total) override;
    HostTensor statistics(MicroBatchId micro_batch) const override;
    Result<void> add_statistics(MicroBatchId micro_batch, const HostTensor& found) override;
    StepTotals finish_step() override;
    void commit(const Commit& commit) override;
    TensorMap state(SliceId slice, bool optimizer_state) const override;
    std::size_t live_bytes() const override;
    MemoryByUse take_peak_memory() override;

  private:
    struct Slice {
        std::unique_ptr<Executor> executor;
        TensorCodec codec_forward = TensorCodec::kNone;
        // Of twins, which must have one state: what rounding loses is nobody's.
        TensorCodec codec_without_feedback = TensorCodec::kNone;
    };
    [[nodiscard]] static std::vector<EncodedTensor> encoded_gradients(
        const Slice& slice, std::vector<HostTensor> gradients);
    [[nodiscard]] Executor& shared() const { return *slices_.front().executor; }
    [[nodiscard]] Result<void> compute(const ComputeJob& job, ComputeResult& result);

    std::string models_directory_;
    std::function<double()> slowdown_;
    std::vector<Slice> slices_;
    Instant free_since_{};  // the last work was over, as emulated
};

}  // namespace ecopipe
