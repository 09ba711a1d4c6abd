#pragma once
// Runs one slice of a model: forwards, backwards and updates, by the six rules of the promise
// (docs/ARCHITECTURE.md). A stage, --single, a virtual client and the benchmark all train through
// this class. The header is plain.
//
// Every layer is an autograd graph of its own: its input is detached, contiguous and row-major, and
// so is the gradient handed to the layer before. So a cut between two layers changes no bit,
// wherever it is made. Gradients of a value that several layers use are added in one order, the
// last user's first, never by autograd.
//
// One thread owns an executor. A step is: begin, forwards and backwards of every micro-batch
// (forwards in order 0..M-1), finish, then commit or discard; weights, moments and buffers change
// by commit alone.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/host_tensor.h"
#include "core/result.h"
#include "domain/layer_gradient.h"
#include "domain/plan.h"
#include "stage_runtime/engine/model/models.h"
#include "transport/wire/messages.h"

namespace ecopipe {

struct ExecutorOptions {
    LayerRange range;
    Segments recomputed{};  // of its layers
    OptimizerSpec optimizer;
    LossSpec loss;
    std::uint64_t seed = 0;
    TensorCodec gradient_codec = TensorCodec::kNone;  // of what encode_gradients makes
    int sum_blocks = 1;                               // sum_blocks.h
};

// A state as it is now, or the tensors themselves, which are it until the next commit or load.
enum class StateMemory { kCopies, kShared };

class Executor {
  public:
    // Weights are uninitialised until loaded. Errors: kBadFile for a model that cannot be used.
    [[nodiscard]] static Result<std::unique_ptr<Executor>> create(const ModelSpec& spec,
                                                                  const ExecutorOptions& options);
    ~Executor();

    // The values (model().flow) whose gradients backward will be given, in the order in which they
    // are added up: a value that several other slices use stands there once for each, the last of
    // them first. Before it is called: each value that leaves the slice, once.
    void set_returns(std::vector<int> values);
    [[nodiscard]] bool sends_input_gradient() const;  // some layer left of the slice is trainable
    [[nodiscard]] const ModelInfo& model() const;     // the whole model's
    [[nodiscard]] LayerRange range() const;
    // Between two steps: these of its layers from now on, in place of the options'.
    void recompute(const Segments& segments);
    // Whether one made with these options would be the same but for its state and what it
    // recomputes. Never with a codec: what it lost so far cannot be reset.
    [[nodiscard]] bool fits(const ExecutorOptions& options) const;

    // State-dict names for weights and buffers, "optimizer/SLOT/NAME" for moments,
    // "codec/LAYER/INPUT" for the residual of a compressed gradient (one of another cut is passed
    // over: its cut is gone). Loading a weight resets nothing else. Errors: kBadFile for an unknown
    // name or another shape or dtype.
    [[nodiscard]] Result<void> load_state(const std::string& name, const HostTensor& value);
    void reset_optimizer();
    [[nodiscard]] TensorMap state(bool optimizer_state,
                                  StateMemory as = StateMemory::kCopies) const;

    // Of each layer that uses tensors of an earlier one (ValueGraph::ties), copies of those: they
    // move with the layer, and no checkpoint has them.
    [[nodiscard]] std::map<int, TensorMap> lent_state() const;

    // Of a tied weight whose home is in another slice, what layer `user` of this one has found in
    // the step; and the other way round, before finish_step. After a commit the home's weight is
    // loaded by its users (load_state).
    [[nodiscard]] HostTensor tied_gradient(const std::string& name, int user);
    void add_tied_gradient(const std::string& name, int user, const HostTensor& gradient);
    [[nodiscard]] HostTensor tied_weight(const std::string& name) const;

    // Of a slice that several devices hold (sum_blocks.h), each with blocks of its own; all before
    // finish_step, and only of layers in `gradient_bytes`.
    [[nodiscard]] std::map<int, std::size_t> gradient_bytes() const;
    // The gradient of a layer's parameters at a node of the tree all of whose blocks ran here,
    // which is no longer counted here then; the other way round that of a node that ran elsewhere,
    // its taker's own, and the sum over all blocks. Errors: kRunFailed for one of another layer.
    [[nodiscard]] LayerGradient take_sum(int layer, int node);
    [[nodiscard]] Result<void> add_sum(int layer, int node, const LayerGradient& sum);
    [[nodiscard]] LayerGradient total(int layer);
    [[nodiscard]] Result<void> set_total(int layer, const LayerGradient& total);
    // What batch norm found in a micro-batch that ran here, or elsewhere (running_statistics.h);
    // 0 bytes: the slice has no such layer.
    [[nodiscard]] std::size_t statistics_bytes() const;
    [[nodiscard]] HostTensor statistics(std::uint32_t micro_batch) const;
    [[nodiscard]] Result<void> add_statistics(std::uint32_t micro_batch, HostTensor found);

    // `loss_divisor`: of the whole batch (data/target_weight.h).
    void begin_step(std::uint64_t step, double loss_divisor);
    // Takes the values that enter the slice (ValueGraph::entering), returns those that leave it;
    // for the last slice the loss is taken too and nothing is returned. Errors: kRunFailed naming
    // the layer.
    [[nodiscard]] Result<std::vector<HostTensor>> forward(std::uint32_t micro_batch,
                                                          const std::vector<HostTensor>& inputs,
                                                          const HostTensor* labels);
    // One gradient an output of the slice (or as set_returns says), undefined where none came back
    // (the last slice needs none); returns one a slice input, undefined where there is none, or
    // nothing when nobody needs them. Frees the micro-batch's stash.
    // `layer_done` is told of each layer, the model's number, once its weights' gradients count.
    using LayerDone = std::function<void(int layer)>;
    [[nodiscard]] Result<std::vector<HostTensor>> backward(
        std::uint32_t micro_batch, const std::vector<HostTensor>& output_gradients,
        const LayerDone& layer_done = {});
    // The two halves of a split backward (zb-h1): the gradients of the inputs now, those of the
    // weights from what is kept of every trainable layer later. Same bits as backward.
    [[nodiscard]] Result<std::vector<HostTensor>> input_gradient(
        std::uint32_t micro_batch, const std::vector<HostTensor>& output_gradients);
    [[nodiscard]] Result<void> weight_gradient(std::uint32_t micro_batch,
                                               const LayerDone& layer_done = {});
    // The slice's input gradients as they go on the wire, with error feedback when they are
    // compressed; micro-batches in order.
    [[nodiscard]] std::vector<EncodedTensor> encode_gradients(std::vector<HostTensor> gradients);
    [[nodiscard]] StepTotals finish_step();
    // After finish_step.
    void commit(double learning_rate, double gradient_scale);
    void discard();  // forgets the step, whatever of it was done

    // Forward in evaluation mode; keeps nothing.
    [[nodiscard]] Result<std::vector<HostTensor>> evaluate(const std::vector<HostTensor>& inputs,
                                                           const HostTensor* labels,
                                                           LossTotals& totals);

  private:
    struct Impl;
    explicit Executor(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace ecopipe
