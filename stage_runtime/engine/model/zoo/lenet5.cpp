#include "stage_runtime/engine/model/zoo/modules.h"

// LeNet-5 in its usual modern form: ReLU, max-pool, padding 2 at the first convolution (61,706
// parameters at 1x28x28 and ten classes). Names are those of the nn.Sequential with the same
// layers.
namespace ecopipe::zoo {

Layers lenet5(const std::vector<std::int64_t>& input, int num_classes) {
    Layers layers;
    const auto add = [&](const std::string& kind) -> Composed& {
        return add_layer(layers, std::to_string(layers.size()), kind);
    };
    const auto simple = [&](const std::string& kind, Function function) {
        add(kind).functions = {std::move(function)};
    };
    const auto conv = [&](std::int64_t in, std::int64_t out, std::int64_t padding) {
        Composed& layer = add("conv2d");
        layer.functions = {
            conv2d(layer, layer.name, {.in = in, .out = out, .kernel = 5, .padding = padding})};
    };
    const auto dense = [&](std::int64_t in, std::int64_t out) {
        Composed& layer = add("linear");
        layer.functions = {linear(layer, layer.name, in, out)};
    };
    const std::int64_t height = (input[1] / 2 - 4) / 2;
    const std::int64_t width = (input[2] / 2 - 4) / 2;
    conv(input[0], 6, 2);
    simple("relu", relu());
    simple("max_pool2d", max_pool2d({.kernel = 2, .stride = 2}));
    conv(6, 16, 0);
    simple("relu", relu());
    simple("max_pool2d", max_pool2d({.kernel = 2, .stride = 2}));
    simple("flatten", flatten());
    dense(16 * height * width, 120);
    simple("relu", relu());
    dense(120, 84);
    simple("relu", relu());
    dense(84, num_classes);
    return layers;
}

}  // namespace ecopipe::zoo
