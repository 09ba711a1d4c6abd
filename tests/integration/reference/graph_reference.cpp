// graph_reference DIR REFERENCE: holds a graph as it runs here against what PyTorch computed
// (export_graph.py --reference): outputs in evaluation and training mode, and every gradient. One
// line of the largest relative differences; exit code 1 when they are too large.
#include <fmt/format.h>

#include <cstdio>
#include <map>

#include "stage_runtime/data/safetensors.h"
#include "stage_runtime/engine/model/layer_sequence.h"
#include "stage_runtime/engine/model/tensor_bridge.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/model/value_table.h"
#include "stage_runtime/engine/run/gradient_table.h"
#include "stage_runtime/engine/run/layer_pass.h"

namespace ecopipe {
namespace {

// Batch norm of a few values makes much of what another processor's kernels round otherwise; a fault
// is off by per cents.
constexpr double kOutputsMax = 5e-5;
constexpr double kGradientsMax = 5e-4;

// Of the largest element.
double difference(const at::Tensor& a, const at::Tensor& b, double least) {
    if (a.sizes() != b.sizes()) return 1;
    return (a - b).abs().max().item<double>() / std::max(b.abs().max().item<double>(), least);
}

struct Found {
    double evaluation = 0;
    double training = 0;
    double gradients = 0;
    std::string worst;  // the parameter
    std::size_t compared = 0;
};

Result<Found> compare(const std::string& directory, const std::string& reference) {
    ECOPIPE_ASSIGN_OR_RETURN(const ModelSpec spec, find_model(directory));
    ECOPIPE_ASSIGN_OR_RETURN(const TensorMap given, read_safetensors(reference));
    ECOPIPE_ASSIGN_OR_RETURN(LayerSequence model, load_layers(spec, nullptr));
    ECOPIPE_ASSIGN_OR_RETURN(const TensorMap weights, initial_weights(spec, 0));
    std::map<std::string, at::Tensor> expected;
    for (const NamedTensor& entry : given) expected[entry.name] = to_torch(entry.tensor);
    std::map<std::string, at::Tensor> held;
    for (auto& layer : model.layers)
        for (LayerTensor& tensor : layer->tensors) {
            held[tensor.name] = tensor.tensor;
            if (tensor.trainable) tensor.tensor.requires_grad_(true);
        }
    {
        const at::NoGradGuard no_grad;
        for (const NamedTensor& entry : weights) held.at(entry.name).copy_(to_torch(entry.tensor));
    }
    Tensors inputs;
    for (const ModelInput& input : model.info.inputs)
        inputs.push_back(expected.at("inputs." + input.name));
    const int layers = static_cast<int>(model.layers.size());
    const LayerRange all{0, layers - 1};
    const ValueGraph& flow = model.info.flow;
    Found found;
    {
        const at::NoGradGuard no_grad;
        ValueTable values(flow, all);
        values.put_entering(inputs);
        for (int i = 0; i < layers; ++i)
            values.put_results(i, model.layers[static_cast<std::size_t>(i)]->forward(
                                      values.arguments_of(i), false));
        found.evaluation = difference(values.leaving().front(), expected.at("outputs"), 1e-6);
    }
    std::vector<LayerStash> stash(static_cast<std::size_t>(layers));
    ValueTable values(flow, all);
    values.put_entering(inputs);
    for (int i = 0; i < layers; ++i)
        values.put_results(
            i,
            forward_layer(*model.layers[static_cast<std::size_t>(i)], values.arguments_of(i),
                          wanted_gradients(flow, i),
                          flow.runs_backward(i) ? &stash[static_cast<std::size_t>(i)] : nullptr));
    found.training = difference(values.leaving().front(), expected.at("training_outputs"), 1e-6);
    GradientTable gradients(flow, all);
    gradients.put_returned(flow.leaving(all), {expected.at("output_gradients")});
    std::map<std::string, at::Tensor> sums;
    for (int i = layers; i-- > 0;) {
        if (!flow.runs_backward(i)) continue;
        const Layer& layer = *model.layers[static_cast<std::size_t>(i)];
        const LayerStash& kept = stash[static_cast<std::size_t>(i)];
        LayerGradients each =
            backward_layer(layer, kept, gradients.of_results(i, kept.roots.size()));
        const auto trainable = distinct_trainable(layer);
        for (std::size_t p = 0; p < trainable.size(); ++p) {
            if (!each.parameters[p].defined()) continue;
            at::Tensor& sum = sums[trainable[p]->first_name()];
            sum = sum.defined() ? sum + each.parameters[p] : each.parameters[p];
        }
        gradients.add(i, std::move(each.inputs));
    }
    // What one parameter's gradient is held against: noise where it is next to nothing beside the
    // others (a bias before batch norm).
    double largest = 0;
    for (const auto& [name, tensor] : expected)
        if (name.starts_with("gradients."))
            largest = std::max(largest, tensor.abs().max().item<double>());
    for (const auto& [name, tensor] : expected) {
        if (!name.starts_with("gradients.")) continue;
        const auto own = sums.find(name.substr(std::string("gradients.").size()));
        const double off = own == sums.end() ? 1 : difference(own->second, tensor, 1e-2 * largest);
        ++found.compared;
        if (off > found.gradients) {
            found.gradients = off;
            found.worst = name;
        }
    }
    return found;
}

}  // namespace
}  // namespace ecopipe

int main(int argc, char** argv) {
    using namespace ecopipe;
    if (argc != 3) return 2;
    configure_torch(1);
    const auto found = compare(argv[1], argv[2]);
    if (!found) {
        std::fprintf(stderr, "graph_reference: %s\n", found.error().message.c_str());
        return 1;
    }
    fmt::print("outputs {:.1e}, in training {:.1e}, {} gradients {:.1e} ({})\n", found->evaluation,
               found->training, found->compared, found->gradients, found->worst);
    return found->evaluation <= kOutputsMax && found->training <= kOutputsMax &&
                   found->gradients <= kGradientsMax
               ? 0
               : 1;
}
