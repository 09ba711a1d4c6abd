#include <array>
#include <cmath>

#include "stage_runtime/engine/model/zoo/modules.h"

// EfficientNet-B0 (Tan and Le, ICML 2019), with torchvision's layers, names and initial values:
// convolutions by kaiming_normal_(mode="fan_out"), the head uniform within 1/sqrt(classes). Pooling
// and flattening are a layer of their own between features and classifier.
namespace ecopipe::zoo {
namespace {

struct StageSetting {
    std::int64_t expansion;
    std::int64_t kernel;
    std::int64_t stride;
    std::int64_t in;
    std::int64_t out;
    int repeats;
};
// Table 1 of the paper.
constexpr std::array<StageSetting, 7> kStages{{{1, 3, 1, 32, 16, 1},
                                               {6, 3, 2, 16, 24, 2},
                                               {6, 5, 2, 24, 40, 2},
                                               {6, 3, 2, 40, 80, 3},
                                               {6, 5, 1, 80, 112, 3},
                                               {6, 5, 2, 112, 192, 4},
                                               {6, 3, 1, 192, 320, 1}}};
constexpr double kStochasticDepth = 0.2;  // of a block after the last; linear from 0 at the first
constexpr double kDropout = 0.2;

void add_conv_bn_silu(Composed& layer, const std::string& prefix, ConvOptions options) {
    options.fan_out_normal = true;
    layer.functions.push_back(conv_bn(layer, prefix + ".0", prefix + ".1", options));
    layer.functions.push_back(silu());
}

// A mobile inverted bottleneck with squeeze and excitation; 1/4 of its input's channels squeezed.
void add_mbconv(Layers& layers, const std::string& name, const StageSetting& s, double drop) {
    Composed& layer = add_layer(layers, name, "mbconv");
    const std::int64_t hidden = s.in * s.expansion;
    int position = 0;
    const auto next = [&] { return name + ".block." + std::to_string(position++); };
    if (s.expansion != 1) add_conv_bn_silu(layer, next(), {.in = s.in, .out = hidden, .kernel = 1});
    add_conv_bn_silu(
        layer, next(),
        {.in = hidden, .out = hidden, .kernel = s.kernel, .stride = s.stride, .groups = hidden});
    layer.functions.push_back(squeeze_excitation(layer, next(), hidden, s.in / 4, true));
    const std::string project = next();
    layer.functions.push_back(
        conv_bn(layer, project + ".0", project + ".1",
                {.in = hidden, .out = s.out, .kernel = 1, .fan_out_normal = true}));
    layer.residual = s.stride == 1 && s.in == s.out;
    if (layer.residual) layer.functions.push_back(stochastic_depth(layer, drop));
}

}  // namespace

Layers efficientnet_b0(const std::vector<std::int64_t>&, int num_classes) {
    constexpr std::int64_t kLastChannels = 1280;
    int blocks = 0;
    for (const StageSetting& stage : kStages) blocks += stage.repeats;
    Layers layers;
    Composed& stem = add_layer(layers, "features.0", "conv_bn_silu");
    add_conv_bn_silu(stem, stem.name, {.in = 3, .out = kStages[0].in, .kernel = 3, .stride = 2});
    int block = 0;
    for (std::size_t i = 0; i < kStages.size(); ++i) {
        StageSetting setting = kStages[i];
        for (int repeat = 0; repeat < kStages[i].repeats; ++repeat) {
            add_mbconv(layers, "features." + std::to_string(i + 1) + "." + std::to_string(repeat),
                       setting, kStochasticDepth * block++ / blocks);
            setting.in = setting.out;
            setting.stride = 1;
        }
    }
    Composed& last = add_layer(layers, "features.8", "conv_bn_silu");
    add_conv_bn_silu(last, last.name,
                     {.in = kStages.back().out, .out = kLastChannels, .kernel = 1});
    add_layer(layers, "avgpool", "global_average_pool").functions = {global_average_pool()};
    Composed& drop = add_layer(layers, "classifier.0", "dropout");
    drop.functions = {dropout(drop, kDropout)};
    Composed& head = add_layer(layers, "classifier.1", "linear");
    head.functions = {linear(head, head.name, kLastChannels, num_classes,
                             {.uniform_bound = 1.0 / std::sqrt(num_classes)})};
    return layers;
}

}  // namespace ecopipe::zoo
