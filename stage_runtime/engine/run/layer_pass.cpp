#include "stage_runtime/engine/run/layer_pass.h"

#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/variable.h>

namespace ecopipe {
namespace {

using torch::autograd::edge_list;

// The outputs that a gradient came back for, and those gradients.
PendingWeightGradient roots_of(const LayerStash& kept, const Tensors& output_gradients) {
    PendingWeightGradient roots;
    for (std::size_t k = 0; k < kept.roots.size(); ++k) {
        if (!kept.roots[k].is_valid() || !output_gradients[k].defined()) continue;
        roots.roots.push_back(kept.roots[k]);
        roots.gradients.push_back(output_gradients[k]);
    }
    return roots;
}

Tensors trainable_tensors(const Layer& layer) {
    Tensors tensors;
    for (const LayerTensor* tensor : distinct_trainable(layer)) tensors.push_back(tensor->tensor);
    return tensors;
}

Tensors inputs_with_gradient(const LayerStash& kept) {
    Tensors inputs;
    for (const at::Tensor& input : kept.inputs)
        if (input.requires_grad()) inputs.push_back(input);
    return inputs;
}

// As torch::autograd::grad, from edges: undefined where a wanted tensor is not reached.
Tensors gradients_of(const PendingWeightGradient& from, const Tensors& wanted, bool keep_graph) {
    if (from.roots.empty() || wanted.empty()) return Tensors(wanted.size());
    edge_list to;
    for (const at::Tensor& tensor : wanted)
        to.push_back(torch::autograd::impl::gradient_edge(tensor));
    return torch::autograd::Engine::get_default_engine().execute(from.roots, from.gradients,
                                                                 keep_graph, /*create_graph=*/false,
                                                                 /*accumulate_grad=*/false, to);
}

// Puts the found gradients at their inputs' places, as the layer before will read them.
Tensors placed_at_inputs(const LayerStash& kept, const Tensors& found) {
    Tensors gradients(kept.inputs.size());
    std::size_t next = 0;
    for (std::size_t k = 0; k < kept.inputs.size(); ++k) {
        if (!kept.inputs[k].requires_grad()) continue;
        const at::Tensor& gradient = found[next++];
        gradients[k] = gradient.defined() ? gradient.contiguous() : at::zeros_like(kept.inputs[k]);
    }
    return gradients;
}

}  // namespace

WantedGradients wanted_gradients(const ValueGraph& flow, int layer) {
    const std::vector<int>& arguments = flow.arguments_of(layer);
    if (flow.is_chain()) return flow.returns_gradient(arguments.front());
    std::vector<bool> each;
    for (const int value : arguments) each.push_back(flow.returns_gradient(value));
    return WantedGradients(std::move(each));
}

Tensors forward_layer(Layer& layer, const Tensors& values, const WantedGradients& wanted,
                      LayerStash* kept) {
    const at::AutoGradMode mode(kept != nullptr);
    Tensors inputs;
    for (const at::Tensor& value : values) {
        at::Tensor leaf = value.detach().contiguous();
        if (kept != nullptr && wanted.of(inputs.size()) && leaf.is_floating_point())
            leaf.requires_grad_(true);
        inputs.push_back(std::move(leaf));
    }
    Tensors arguments = inputs;
    if (layer.writes_input)
        for (at::Tensor& argument : arguments) argument = argument.clone();
    Tensors outputs = layer.forward(arguments, true);
    if (kept == nullptr) return outputs;
    kept->inputs = std::move(inputs);
    for (const at::Tensor& output : outputs)
        kept->roots.push_back(output.requires_grad() ? torch::autograd::impl::gradient_edge(output)
                                                     : torch::autograd::Edge());
    return outputs;
}

LayerGradients backward_layer(const Layer& layer, const LayerStash& kept,
                              const Tensors& output_gradients) {
    Tensors wanted = inputs_with_gradient(kept);
    const auto inputs = static_cast<std::ptrdiff_t>(wanted.size());
    const Tensors parameters = trainable_tensors(layer);
    wanted.insert(wanted.end(), parameters.begin(), parameters.end());
    const Tensors found = gradients_of(roots_of(kept, output_gradients), wanted, false);
    LayerGradients gradients;
    gradients.inputs = placed_at_inputs(kept, found);
    gradients.parameters.assign(found.begin() + inputs, found.end());
    return gradients;
}

Tensors input_gradients_of(const Layer& layer, LayerStash kept, const Tensors& output_gradients,
                           std::optional<PendingWeightGradient>& pending) {
    pending.reset();
    PendingWeightGradient roots = roots_of(kept, output_gradients);
    const bool trainable = !trainable_tensors(layer).empty();
    const Tensors found = gradients_of(roots, inputs_with_gradient(kept), trainable);
    if (trainable && !roots.roots.empty()) pending = std::move(roots);
    return placed_at_inputs(kept, found);
}

Tensors weight_gradients_of(const Layer& layer, PendingWeightGradient pending) {
    return gradients_of(pending, trainable_tensors(layer), false);
}

}  // namespace ecopipe
