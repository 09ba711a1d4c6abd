#pragma once
// A model whose every number is a hash: the state of a layer is a chain over (step, micro-batches),
// as the sum blocks have them,
// and what flows between layers depends on their states. A micro-batch applied twice, left out or
// out of order, or states of different steps combined, show in the next state of some layer.

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "core/host_tensor.h"
#include "domain/layer_gradient.h"
#include "domain/model_spec.h"
#include "domain/sum_blocks.h"
#include "domain/value_graph.h"
#include "orchestrator/session/training_engine.h"

namespace ecopipe::sim {

inline constexpr int kLayers = 6;
inline constexpr int kStatelessLayer = 2;
inline const std::vector<int> kStatefulLayers{0, 1, 3, 4, 5};

[[nodiscard]] std::uint64_t mix(std::uint64_t a, std::uint64_t b);
[[nodiscard]] std::uint64_t initial_state(int layer);
// What becomes of a batch's inputs or labels: all of them count.
[[nodiscard]] std::uint64_t digest(const HostTensor& tensor);
// What the last layer's output is worth, a small multiple of 1/8: sums are exact in any order.
[[nodiscard]] LossTotals loss_of(std::uint64_t output, std::uint64_t label);

// A layer's state as tensors: the value, and a second one that belongs to the same step.
[[nodiscard]] TensorMap tensors_of(int layer, std::uint64_t state);
// Nothing when the two do not belong together.
[[nodiscard]] const std::uint64_t* state_in(const TensorMap& tensors);
[[nodiscard]] HostTensor tensor_of(std::uint64_t value);
[[nodiscard]] HostTensor tensor_of(const std::vector<std::uint64_t>& values);

// How the layers hang together: a chain, or a graph with skips, several users of a value, a layer
// that makes two, an input that two take and a state that two layers use.
enum class ToyKind { kChain, kGraph };
[[nodiscard]] const ValueGraph& toy_flow(ToyKind kind);
// What the world outside may know of the model.
[[nodiscard]] ModelInfo model_info(ToyKind kind);

// Some consecutive layers, as an executor holds them. Gradients that are added up in another order
// make another sum.
class ToySlice {
  public:
    ToySlice(ToyKind kind, LayerRange layers, int sum_blocks)
        : flow_(&toy_flow(kind)),
          layers_(layers),
          tree_(sum_blocks),
          returns_(flow_->leaving(layers)) {}
    // The values whose gradients `backward` is given.
    void set_returns(std::vector<int> values) { returns_ = std::move(values); }
    [[nodiscard]] LayerRange layers() const { return layers_; }
    void load(int layer, std::uint64_t state) { states_[layer] = state; }
    [[nodiscard]] const std::map<int, std::uint64_t>& states() const { return states_; }
    void begin_step();
    // The values that enter, those that leave; the gradients that come back, those of what entered
    // (0 where there is none).
    [[nodiscard]] std::vector<std::uint64_t> forward(std::uint32_t micro_batch,
                                                     const std::vector<std::uint64_t>& entering);
    [[nodiscard]] std::vector<std::uint64_t> input_gradients(
        std::uint32_t micro_batch, const std::vector<std::uint64_t>& returned);
    // After that, once: what the micro-batch is to its layers counts.
    void weight_gradients(std::uint32_t micro_batch);
    void commit(std::uint64_t step);
    // Of a tied state whose home is in another slice, or whose user is.
    [[nodiscard]] std::uint64_t tied_gradient(const TiedUse& use) {
        return total_of(tied_gradients_[use.user]).value();
    }
    void add_tied_gradient(const TiedUse& use, std::uint64_t gradient) {
        tied_gradients_[use.user].total = gradient;
    }
    // Of a slice that several hold: the layers that have something to add up, what a layer has at
    // a node of the tree and over all blocks, and what each micro-batch leaves in the states.
    [[nodiscard]] std::vector<int> summed_layers() const;
    [[nodiscard]] LayerGradient take_sum(int layer, int node);
    void add_sum(int layer, int node, const LayerGradient& sum);
    [[nodiscard]] LayerGradient total(int layer);
    void set_total(int layer, const LayerGradient& total);
    [[nodiscard]] HostTensor statistics(std::uint32_t micro_batch) const;
    void add_statistics(std::uint32_t micro_batch, const HostTensor& found);
    void set_tied_state(const TiedUse& use, std::uint64_t state) { lent_[use.home] = state; }
    [[nodiscard]] std::uint64_t tied_state(const TiedUse& use) const {
        return layers_.contains(use.home) ? states_.at(use.home) : lent_.at(use.home);
    }

  private:
    struct Sum {
        std::vector<std::optional<std::uint64_t>> nodes{};
        std::optional<std::uint64_t> total{};
    };
    void count(Sum& sum, std::uint32_t micro_batch, std::uint64_t gradient) const;
    [[nodiscard]] std::optional<std::uint64_t> sum_at(Sum& sum, int node) const;
    [[nodiscard]] std::optional<std::uint64_t> total_of(Sum& sum) const;
    [[nodiscard]] std::vector<Sum*> sums_of(int layer);

    const ValueGraph* flow_;
    LayerRange layers_;
    SumTree tree_;
    std::vector<int> returns_;
    std::map<int, std::uint64_t> states_;
    std::map<std::uint32_t, std::map<int, std::uint64_t>> stash_;  // each layer's input
    struct Found {
        int layer;
        bool tied;
        std::uint64_t gradient;
    };
    std::map<std::uint32_t, std::vector<Found>> found_;  // that do not count yet
    std::map<int, Sum> gradients_;
    std::map<int, Sum> tied_gradients_;  // by user
    std::map<int, std::uint64_t> lent_;  // by home
    // By micro-batch, one a layer: as batch norm's they change the state in its order.
    std::map<std::uint32_t, std::vector<std::uint64_t>> statistics_;
};

// All layers as the tensors of a checkpoint, and back; nothing when some do not belong together.
using ToyStates = std::map<int, std::uint64_t>;
[[nodiscard]] TensorMap checkpoint_of(const ToyStates& states);
[[nodiscard]] std::optional<ToyStates> states_in(const TensorMap& checkpoint);

// The model in one process, where nothing fails. It remembers the states before each step.
class WholeModel : public TrainingEngine {
  public:
    WholeModel(ToyKind kind, int sum_blocks) : layers_(kind, {0, kLayers - 1}, sum_blocks) {}
    [[nodiscard]] static TensorMap initial();
    [[nodiscard]] const std::vector<ToyStates>& states() const { return states_; }

    Result<void> load(const TensorMap& state, std::uint64_t step) override;
    Result<void> start_step(std::uint64_t step, std::vector<Batch> micro_batches, double,
                            bool) override;
    Result<StepOutcome> finish_step() override;
    Result<void> commit(double, double) override;
    Result<LossTotals> evaluate(const Dataset& data, int batch, int readers) override;
    Result<TensorMap> state(bool) override { return checkpoint_of(layers_.states()); }
    void end(ExitCode, const std::string&) override {}

  private:
    ToySlice layers_;
    std::vector<ToyStates> states_;
    LossTotals loss_;
};

}  // namespace ecopipe::sim
