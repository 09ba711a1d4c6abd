#pragma once
// One layer forward and backward, as an autograd graph of its own. The executor trains and the
// profiler measures through these functions, so what is measured is what runs. Includes torch.

#include <torch/csrc/autograd/edge.h>

#include <optional>
#include <utility>
#include <vector>

#include "domain/value_graph.h"
#include "stage_runtime/engine/model/layer.h"

namespace ecopipe {

// What one layer of one micro-batch keeps for its backward.
struct LayerStash {
    Tensors inputs;  // leaves, contiguous and row-major
    // The layer's graph, one edge an output, not valid where no gradient flows. The outputs
    // themselves are not kept: the next layer keeps what it needs of them.
    std::vector<torch::autograd::Edge> roots;
};

// Which of a layer's inputs get a gradient, if they are of a kind that has one.
class WantedGradients {
  public:
    WantedGradients(bool all) : all_(all) {}  // NOLINT(google-explicit-constructor): of a chain
    explicit WantedGradients(std::vector<bool> each) : each_(std::move(each)) {}
    [[nodiscard]] bool of(std::size_t input) const { return each_.empty() ? all_ : each_[input]; }

  private:
    bool all_ = false;
    std::vector<bool> each_;
};

[[nodiscard]] WantedGradients wanted_gradients(const ValueGraph& flow, int layer);

// Forward in training mode. `kept` null runs without a graph; `wanted`: what the layers before will
// ask for. The caller has keyed the random generator.
[[nodiscard]] Tensors forward_layer(Layer& layer, const Tensors& values,
                                    const WantedGradients& wanted, LayerStash* kept);

struct LayerGradients {
    Tensors inputs;      // one an input; undefined where none was asked for
    Tensors parameters;  // one for each of distinct_trainable(layer); undefined where unused
};

// One gradient an output, undefined where none came back. Consumes the graph.
[[nodiscard]] LayerGradients backward_layer(const Layer& layer, const LayerStash& kept,
                                            const Tensors& output_gradients);

// What is left of a layer between the two halves of a split backward: the graph that holds what the
// weight gradient needs, and the gradients of the outputs.
struct PendingWeightGradient {
    std::vector<torch::autograd::Edge> roots;
    Tensors gradients;  // one a root
};

// The first half: gradients of the inputs alone, with the same bits as backward_layer's. `pending`
// is filled when the layer has trainable tensors that the outputs depend on.
[[nodiscard]] Tensors input_gradients_of(const Layer& layer, LayerStash kept,
                                         const Tensors& output_gradients,
                                         std::optional<PendingWeightGradient>& pending);
// The second half: one gradient for each of distinct_trainable(layer). Consumes the graph.
[[nodiscard]] Tensors weight_gradients_of(const Layer& layer, PendingWeightGradient pending);

}  // namespace ecopipe
