#include "stage_runtime/engine/model/zoo/modules.h"

// A plain convolutional network of eleven layers for measuring pipelines: equal blocks, no batch
// statistics. Names are those of an nn.Sequential of blocks.
namespace ecopipe::zoo {

Layers plain_cnn(const std::vector<std::int64_t>&, int num_classes) {
    constexpr std::int64_t kChannels = 64;
    constexpr int kBlocks = 8;
    Layers layers;
    for (int i = 0; i <= kBlocks; ++i) {
        Composed& block = add_layer(layers, std::to_string(i), "conv_gn_relu");
        block.functions = {conv2d(block, block.name + ".0",
                                  {.in = i == 0 ? 3 : kChannels,
                                   .out = kChannels,
                                   .kernel = 3,
                                   .padding = 1,
                                   .bias = false}),
                           group_norm(block, block.name + ".1", 8, kChannels), relu()};
    }
    add_layer(layers, std::to_string(kBlocks + 1), "global_average_pool").functions = {
        global_average_pool()};
    Composed& head = add_layer(layers, std::to_string(kBlocks + 2), "linear");
    head.functions = {linear(head, head.name, kChannels, num_classes)};
    return layers;
}

}  // namespace ecopipe::zoo
