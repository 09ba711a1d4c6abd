#include "stage_runtime/engine/layer_pass.h"

#include <torch/csrc/autograd/autograd.h>

namespace ecopipe {

Tensors forward_layer(Layer& layer, const Tensors& values, bool input_gradients, LayerStash* kept) {
    const at::AutoGradMode mode(kept != nullptr);
    Tensors inputs;
    for (const at::Tensor& value : values) {
        at::Tensor leaf = value.detach().contiguous();
        if (kept != nullptr && input_gradients && leaf.is_floating_point())
            leaf.requires_grad_(true);
        inputs.push_back(std::move(leaf));
    }
    Tensors arguments = inputs;
    if (layer.writes_input)
        for (at::Tensor& argument : arguments) argument = argument.clone();
    Tensors outputs = layer.forward(arguments, true);
    if (kept != nullptr) *kept = {std::move(inputs), outputs};
    return outputs;
}

LayerGradients backward_layer(const Layer& layer, const LayerStash& kept,
                              const Tensors& output_gradients) {
    Tensors outputs;
    Tensors seeds;
    for (std::size_t k = 0; k < kept.outputs.size(); ++k) {
        if (!kept.outputs[k].requires_grad() || !output_gradients[k].defined()) continue;
        outputs.push_back(kept.outputs[k]);
        seeds.push_back(output_gradients[k]);
    }
    Tensors wanted;
    for (const at::Tensor& input : kept.inputs)
        if (input.requires_grad()) wanted.push_back(input);
    for (const LayerTensor& tensor : layer.tensors)
        if (tensor.trainable) wanted.push_back(tensor.tensor);
    LayerGradients gradients;
    gradients.inputs.resize(kept.inputs.size());
    Tensors found(wanted.size());
    if (!outputs.empty() && !wanted.empty())
        found = torch::autograd::grad(outputs, wanted, seeds, /*retain_graph=*/false,
                                      /*create_graph=*/false, /*allow_unused=*/true);
    std::size_t next = 0;
    for (std::size_t k = 0; k < kept.inputs.size(); ++k) {
        if (!kept.inputs[k].requires_grad()) continue;
        const at::Tensor& gradient = found[next++];
        gradients.inputs[k] =
            gradient.defined() ? gradient.contiguous() : at::zeros_like(kept.inputs[k]);
    }
    gradients.parameters.assign(found.begin() + static_cast<std::ptrdiff_t>(next), found.end());
    return gradients;
}

}  // namespace ecopipe
