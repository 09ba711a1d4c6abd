#include <array>

#include "stage_runtime/engine/model/zoo/modules.h"

// MobileNetV2 (Sandler et al., CVPR 2018), width 1, with torchvision's layers, names and initial
// values. Pooling and flattening, which torchvision does in forward(), are a layer of their own
// between features and classifier.
namespace ecopipe::zoo {
namespace {

struct BlockSetting {
    std::int64_t expansion;
    std::int64_t channels;
    int repeats;
    std::int64_t stride;
};
// Table 2 of the paper.
constexpr std::array<BlockSetting, 7> kBlocks{{{1, 16, 1, 1},
                                               {6, 24, 2, 2},
                                               {6, 32, 3, 2},
                                               {6, 64, 4, 2},
                                               {6, 96, 3, 1},
                                               {6, 160, 3, 2},
                                               {6, 320, 1, 1}}};

void add_conv_bn_relu(Composed& layer, const std::string& prefix, ConvOptions options) {
    options.fan_out_normal = true;
    layer.functions.push_back(conv_bn(layer, prefix + ".0", prefix + ".1", options));
    layer.functions.push_back(relu6());
}

void add_inverted_residual(Layers& layers, std::int64_t in, std::int64_t out, std::int64_t stride,
                           std::int64_t expansion) {
    Composed& layer =
        add_layer(layers, "features." + std::to_string(layers.size()), "inverted_residual");
    const std::string prefix = layer.name + ".conv.";
    const std::int64_t hidden = in * expansion;
    int position = 0;
    const auto next = [&] { return prefix + std::to_string(position++); };
    if (expansion != 1) add_conv_bn_relu(layer, next(), {.in = in, .out = hidden, .kernel = 1});
    add_conv_bn_relu(
        layer, next(),
        {.in = hidden, .out = hidden, .kernel = 3, .stride = stride, .groups = hidden});
    layer.functions.push_back(
        conv2d(layer, next(),
               {.in = hidden, .out = out, .kernel = 1, .bias = false, .fan_out_normal = true}));
    layer.functions.push_back(batch_norm2d(layer, next(), out));
    layer.residual = stride == 1 && in == out;
}

}  // namespace

Layers mobilenet_v2(const std::vector<std::int64_t>&, int num_classes) {
    constexpr std::int64_t kLastChannels = 1280;
    Layers layers;
    Composed& stem = add_layer(layers, "features.0", "conv_bn_relu6");
    add_conv_bn_relu(stem, stem.name, {.in = 3, .out = 32, .kernel = 3, .stride = 2});
    std::int64_t channels = 32;
    for (const BlockSetting& block : kBlocks) {
        for (int i = 0; i < block.repeats; ++i) {
            add_inverted_residual(layers, channels, block.channels, i == 0 ? block.stride : 1,
                                  block.expansion);
            channels = block.channels;
        }
    }
    Composed& last = add_layer(layers, "features.18", "conv_bn_relu6");
    add_conv_bn_relu(last, last.name, {.in = channels, .out = kLastChannels, .kernel = 1});
    add_layer(layers, "avgpool", "global_average_pool").functions = {global_average_pool()};
    Composed& drop = add_layer(layers, "classifier.0", "dropout");
    drop.functions = {dropout(drop, 0.2)};
    Composed& head = add_layer(layers, "classifier.1", "linear");
    head.functions = {linear(head, head.name, kLastChannels, num_classes, {.normal_std = 0.01})};
    return layers;
}

}  // namespace ecopipe::zoo
