#include "stage_runtime/engine/model/zoo/modules.h"

// The CNN of the Eco-FL experiments (1,199,882 parameters at 1x28x28 and ten classes). Names are
// those of the nn.Sequential with the same layers.
namespace ecopipe::zoo {

Layers fashion_cnn(const std::vector<std::int64_t>& input, int num_classes) {
    Layers layers;
    const auto add = [&](const std::string& kind) -> Composed& {
        return add_layer(layers, std::to_string(layers.size()), kind);
    };
    const auto simple = [&](const std::string& kind, Function function) {
        add(kind).functions = {std::move(function)};
    };
    const auto conv = [&](std::int64_t in, std::int64_t out) {
        Composed& layer = add("conv2d");
        layer.functions = {conv2d(layer, layer.name, {.in = in, .out = out, .kernel = 3})};
    };
    const auto dense = [&](std::int64_t in, std::int64_t out) {
        Composed& layer = add("linear");
        layer.functions = {linear(layer, layer.name, in, out)};
    };
    const auto drop = [&](double probability) {
        Composed& layer = add("dropout");
        layer.functions = {dropout(layer, probability)};
    };
    conv(input[0], 32);
    simple("relu", relu());
    conv(32, 64);
    simple("relu", relu());
    simple("max_pool2d", max_pool2d({.kernel = 2, .stride = 2}));
    drop(0.25);
    simple("flatten", flatten());
    dense(64 * ((input[1] - 4) / 2) * ((input[2] - 4) / 2), 128);
    simple("relu", relu());
    drop(0.5);
    dense(128, num_classes);
    return layers;
}

}  // namespace ecopipe::zoo
