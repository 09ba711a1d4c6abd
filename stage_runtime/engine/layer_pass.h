#pragma once
// One layer forward and backward, as an autograd graph of its own. The executor trains and the
// profiler measures through these two functions, so what is measured is what runs. Includes torch.

#include "stage_runtime/model/layer.h"

namespace ecopipe {

// What one layer of one micro-batch keeps for its backward.
struct LayerStash {
    Tensors inputs;   // leaves, contiguous and row-major
    Tensors outputs;  // with the layer's graph behind them
};

// Forward in training mode. `kept` null runs without a graph; `input_gradients`: the layer before
// will want them. The caller has keyed the random generator.
[[nodiscard]] Tensors forward_layer(Layer& layer, const Tensors& values, bool input_gradients,
                                    LayerStash* kept);

struct LayerGradients {
    Tensors inputs;      // one an input; undefined where none was asked for
    Tensors parameters;  // one a trainable tensor, in the layer's order; undefined where unused
};

// One gradient an output, undefined where none came back. Consumes the graph.
[[nodiscard]] LayerGradients backward_layer(const Layer& layer, const LayerStash& kept,
                                            const Tensors& output_gradients);

}  // namespace ecopipe
