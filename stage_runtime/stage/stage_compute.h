#pragma once
// What a stage computes with, as the one who drives it sees it: the engine (torch_compute.h), or a
// toy. One thread.

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "core/clock.h"
#include "core/host_tensor.h"
#include "core/memory_use.h"
#include "core/result.h"
#include "domain/action.h"
#include "domain/ids.h"
#include "domain/layer_gradient.h"
#include "domain/loss.h"
#include "domain/plan.h"
#include "domain/tensor_address.h"
#include "domain/tensor_codec.h"
#include "domain/value_graph.h"
#include "transport/wire/messages.h"

namespace ecopipe {

// One action with all that it needs.
struct ComputeJob {
    Action action;
    StepMode mode = StepMode::kTrain;
    // A forward's inputs in the order of ValueGraph::entering; a backward's gradients as the plan
    // has them return (StageWays::returning), of a chain at the places of the slice's outputs,
    // undefined where none came back.
    std::vector<HostTensor> tensors;
    HostTensor labels;       // of a last slice's forward, else undefined
    Instant complete_since;  // the last of it came
    // Told of each layer whose weights' gradients are counted, while the action goes on with the
    // layers before it; or nobody.
    std::function<void(int layer)> layer_done{};
};

struct ComputeResult {
    // A forward's outputs, none of a last slice's; a backward's gradients at the places of the
    // slice's inputs, undefined where there is none. As they go on the wire.
    std::vector<EncodedTensor> tensors;
    LossTotals loss;  // of a last slice's forward in an evaluation
    Instant started;
    Instant ended;
};

// What the devices that hold a stage together exchange once a step.
struct StageSums {
    std::map<int, std::size_t> gradient_bytes;  // of the layers that have some to train
    bool statistics = false;                    // batch norm's, of each micro-batch
};

class StageCompute {
  public:
    StageCompute() = default;
    StageCompute(const StageCompute&) = delete;
    StageCompute& operator=(const StageCompute&) = delete;
    virtual ~StageCompute() = default;

    // Gets ready to run these stages of the plan as slices 0, 1, ...; their state is loaded
    // afterwards, whatever was held before. Returns what the model's layers hand one another;
    // nothing (of no layer) without slices. Errors: kBadFile for a model that cannot be used here.
    [[nodiscard]] virtual Result<ValueGraph> prepare(const Configure& work, const Plan& plan,
                                                     std::span<const StageId> slices) = 0;
    virtual void clear() = 0;    // of slices and all
    virtual void discard() = 0;  // the step under way, whatever of it was done
    // Copies of every layer's state (weights, buffers, optimiser), of those that have any.
    [[nodiscard]] virtual std::map<int, TensorMap> layer_states() const = 0;
    // Errors: kRunFailed for a layer that is not here, kBadFile for tensors that are not its.
    [[nodiscard]] virtual Result<void> load(int layer, const TensorMap& state) = 0;

    // Between two steps: from the next on these layers are recomputed, whatever the plan says.
    virtual void recompute(const Segments& segments) = 0;

    virtual void begin(std::uint64_t step, const Begin& begin) = 0;
    // Errors: kRunFailed naming the layer.
    [[nodiscard]] virtual Result<ComputeResult> run(ComputeJob job) = 0;
    // Tied weights between two slices (Executor): before the step's end, and after a commit.
    [[nodiscard]] virtual HostTensor tied_gradient(SliceId slice, const TiedUse& use) = 0;
    virtual void add_tied_gradient(SliceId slice, const TiedUse& use,
                                   const HostTensor& gradient) = 0;
    [[nodiscard]] virtual HostTensor tied_weight(SliceId slice, const TiedUse& use) = 0;
    [[nodiscard]] virtual Result<void> set_tied_weight(SliceId slice, const TiedUse& use,
                                                       const HostTensor& weight) = 0;
    // Between the devices that hold slice 0, the only one, together (Executor): before the step's
    // end.
    [[nodiscard]] virtual StageSums sums() const = 0;
    [[nodiscard]] virtual LayerGradient take_sum(int layer, int node) = 0;
    [[nodiscard]] virtual Result<void> add_sum(int layer, int node, const LayerGradient& sum) = 0;
    [[nodiscard]] virtual LayerGradient total(int layer) = 0;
    [[nodiscard]] virtual Result<void> set_total(int layer, const LayerGradient& total) = 0;
    [[nodiscard]] virtual HostTensor statistics(MicroBatchId micro_batch) const = 0;
    [[nodiscard]] virtual Result<void> add_statistics(MicroBatchId micro_batch,
                                                      const HostTensor& found) = 0;
    [[nodiscard]] virtual StepTotals finish_step() = 0;  // over all slices
    virtual void commit(const Commit& commit) = 0;
    // The tensors themselves, so that a state on its way takes no memory: right until the next
    // commit or load. The portal asks for neither before it has all; what of them is still to be
    // sent when it gives up on that is of an older generation to whoever gets it.
    [[nodiscard]] virtual TensorMap state(SliceId slice, bool optimizer_state) const = 0;

    [[nodiscard]] virtual std::size_t live_bytes() const = 0;  // of tensors
    // The most since it was last asked, with what it was taken for.
    [[nodiscard]] virtual MemoryByUse take_peak_memory() = 0;
};

}  // namespace ecopipe
