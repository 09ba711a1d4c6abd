#include <array>

#include "stage_runtime/engine/model/zoo/modules.h"

// ShuffleNetV2 (Ma et al., ECCV 2018), width 1, with torchvision's layers, names and initial values
// (PyTorch's defaults). The mean over the image, which torchvision takes in forward(), is a layer
// of its own before the head.
namespace ecopipe::zoo {
namespace {

struct ShuffleStage {
    const char* name;
    std::int64_t channels;
    int units;
};
// Table 5 of the paper.
constexpr std::array<ShuffleStage, 3> kShuffleStages{
    {{"stage2", 116, 4}, {"stage3", 232, 8}, {"stage4", 464, 4}}};

// Half of the channels pass by, or, where the image shrinks, go through a branch of their own.
void add_split_unit(Layers& layers, const std::string& name, std::int64_t in, std::int64_t out,
                    std::int64_t stride) {
    Composed& layer = add_layer(layers, name, "shuffle_unit");
    const std::int64_t half = out / 2;
    // Convolution `i` of a branch, with its batch norm behind it.
    const auto conv = [&](const std::string& branch, int i, const ConvOptions& options) {
        return conv_bn(layer, name + branch + std::to_string(i),
                       name + branch + std::to_string(i + 1), options);
    };
    Function branch1;
    if (stride > 1) {
        const Function depthwise =
            conv(".branch1.", 0, {.in = in, .out = in, .stride = stride, .groups = in});
        const Function point = conv(".branch1.", 2, {.in = in, .out = half, .kernel = 1});
        branch1 = chain({depthwise, point, relu()});
    }
    const Function expand =
        conv(".branch2.", 0, {.in = stride > 1 ? in : half, .out = half, .kernel = 1});
    const Function depthwise =
        conv(".branch2.", 3, {.in = half, .out = half, .stride = stride, .groups = half});
    const Function point = conv(".branch2.", 5, {.in = half, .out = half, .kernel = 1});
    const Function branch2 = chain({expand, relu(), depthwise, point, relu()});
    layer.functions = {[=](const at::Tensor& x, bool training) {
        if (branch1)
            return shuffle_channels(at::cat({branch1(x, training), branch2(x, training)}, 1), 2);
        const std::vector<at::Tensor> halves = x.chunk(2, 1);
        return shuffle_channels(at::cat({halves[0], branch2(halves[1], training)}, 1), 2);
    }};
}

}  // namespace

Layers shufflenet_v2_x1_0(const std::vector<std::int64_t>&, int num_classes) {
    constexpr std::int64_t kLastChannels = 1024;
    std::int64_t channels = 24;
    Layers layers;
    const auto add_conv = [&](const std::string& name, const ConvOptions& options) {
        Composed& layer = add_layer(layers, name, "conv_bn_relu");
        layer.functions = {conv_bn(layer, name + ".0", name + ".1", options), relu()};
    };
    add_conv("conv1", {.in = 3, .out = channels, .stride = 2});
    add_layer(layers, "maxpool", "max_pool2d").functions = {
        max_pool2d({.kernel = 3, .stride = 2, .padding = 1})};
    for (const ShuffleStage& stage : kShuffleStages) {
        for (int unit = 0; unit < stage.units; ++unit) {
            add_split_unit(layers, stage.name + ("." + std::to_string(unit)), channels,
                           stage.channels, unit == 0 ? 2 : 1);
            channels = stage.channels;
        }
    }
    add_conv("conv5", {.in = channels, .out = kLastChannels, .kernel = 1});
    add_layer(layers, "globalpool", "global_average_pool").functions = {global_average_pool()};
    Composed& head = add_layer(layers, "fc", "linear");
    head.functions = {linear(head, head.name, kLastChannels, num_classes)};
    return layers;
}

}  // namespace ecopipe::zoo
