#include <array>

#include "stage_runtime/engine/model/zoo/modules.h"

// ShuffleNet (Zhang et al., CVPR 2018), width 1 with three groups, with PyTorch's default initial
// values. Tensors are named as in torchvision's ResNets: conv1.0 and conv1.1 (batch norm) in front;
// in every unit of stage2 to stage4 conv1, bn1 (grouped, then shuffled), conv2, bn2 (depthwise),
// conv3, bn3 (grouped); fc at the end. tests/integration/reference/zoo_models.py has the module.
namespace ecopipe::zoo {
namespace {

constexpr std::int64_t kShuffleGroups = 3;
constexpr std::int64_t kFirstChannels = 24;  // too few for groups
constexpr int kBottleneck = 4;               // a unit's inner channels are its outputs by so many

struct GroupStage {
    const char* name;
    std::int64_t channels;
    int units;
};
// Table 1 of the paper, for three groups.
constexpr std::array<GroupStage, 3> kGroupStages{
    {{"stage2", 240, 4}, {"stage3", 480, 8}, {"stage4", 960, 4}}};

// Where the image shrinks, the input's own average is put beside what is computed, instead of added
// to it. `groups`: of the first convolution.
void add_group_unit(Layers& layers, const std::string& name, std::int64_t in, std::int64_t out,
                    std::int64_t stride, std::int64_t groups) {
    Composed& layer = add_layer(layers, name, "shuffle_unit");
    const std::int64_t inner = out / kBottleneck;
    const std::int64_t computed = stride > 1 ? out - in : out;
    const auto conv = [&](const std::string& number, const ConvOptions& options) {
        return conv_bn(layer, name + ".conv" + number, name + ".bn" + number, options);
    };
    const Function first = conv("1", {.in = in, .out = inner, .kernel = 1, .groups = groups});
    const Function depthwise =
        conv("2", {.in = inner, .out = inner, .stride = stride, .groups = inner});
    const Function last =
        conv("3", {.in = inner, .out = computed, .kernel = 1, .groups = kShuffleGroups});
    layer.functions = {[=](const at::Tensor& x, bool training) {
        at::Tensor inside = at::relu(first(x, training));
        inside = depthwise(shuffle_channels(inside, kShuffleGroups), training);
        const at::Tensor out_of = last(inside, training);
        if (stride == 1) return at::relu(x + out_of);
        const at::Tensor beside = at::avg_pool2d(x, {3, 3}, {2, 2}, {1, 1});
        return at::relu(at::cat({beside, out_of}, 1));
    }};
}

}  // namespace

Layers shufflenet_v1_g3(const std::vector<std::int64_t>&, int num_classes) {
    std::int64_t channels = kFirstChannels;
    Layers layers;
    Composed& stem = add_layer(layers, "conv1", "conv_bn_relu");
    stem.functions = {conv_bn(stem, "conv1.0", "conv1.1", {.in = 3, .out = channels, .stride = 2}),
                      relu()};
    add_layer(layers, "maxpool", "max_pool2d").functions = {
        max_pool2d({.kernel = 3, .stride = 2, .padding = 1})};
    for (const GroupStage& stage : kGroupStages) {
        for (int unit = 0; unit < stage.units; ++unit) {
            add_group_unit(layers, stage.name + ("." + std::to_string(unit)), channels,
                           stage.channels, unit == 0 ? 2 : 1,
                           channels == kFirstChannels ? 1 : kShuffleGroups);
            channels = stage.channels;
        }
    }
    add_layer(layers, "globalpool", "global_average_pool").functions = {global_average_pool()};
    Composed& head = add_layer(layers, "fc", "linear");
    head.functions = {linear(head, head.name, channels, num_classes)};
    return layers;
}

}  // namespace ecopipe::zoo
