#pragma once
// The building blocks of the zoo: PyTorch's modules of the same names, with PyTorch's default
// initial values.

#include "stage_runtime/engine/model/layer.h"

namespace ecopipe::zoo {

// A module adds its tensors to a layer under `prefix` and is then a function of tensors.
using Function = std::function<at::Tensor(const at::Tensor&, bool training)>;

struct ConvOptions {
    std::int64_t in = 1;
    std::int64_t out = 1;
    std::int64_t kernel = 3;
    std::int64_t stride = 1;
    std::int64_t padding = 0;
    std::int64_t groups = 1;
    bool bias = true;
    // torchvision's kaiming_normal_(mode="fan_out"), bias 0, instead of the default.
    bool fan_out_normal = false;
};

// What a linear module's weights start from: N(0, normal_std), or uniform within `uniform_bound`,
// with bias 0; without either PyTorch's default.
struct LinearStart {
    double normal_std = 0;
    double uniform_bound = 0;
};

[[nodiscard]] Function conv2d(Layer& layer, const std::string& prefix, const ConvOptions& options);
// A convolution without bias that keeps the size but for its stride (odd kernels), and its batch
// norm.
[[nodiscard]] Function conv_bn(Layer& layer, const std::string& conv, const std::string& norm,
                               ConvOptions options);
[[nodiscard]] Function linear(Layer& layer, const std::string& prefix, std::int64_t in,
                              std::int64_t out, const LinearStart& start = {});
[[nodiscard]] Function batch_norm2d(Layer& layer, const std::string& prefix, std::int64_t channels);
[[nodiscard]] Function group_norm(Layer& layer, const std::string& prefix, std::int64_t groups,
                                  std::int64_t channels);
struct EmbeddingOptions {
    std::int64_t rows = 1;
    std::int64_t columns = 1;
    std::int64_t padding = -1;  // the row of this id is 0 and stays so; -1: there is none
    double deviation = 1;       // of the normal distribution that the others are drawn from
};
// [...] token ids -> [..., columns].
[[nodiscard]] Function embedding(Layer& layer, const std::string& prefix,
                                 const EmbeddingOptions& options);
// MobileBERT's instead of a layer norm: times a weight, plus a bias, a channel.
[[nodiscard]] Function no_norm(Layer& layer, const std::string& prefix, std::int64_t channels);
// torchvision's SqueezeExcitation with SiLU: scales each channel by what the means of all say.
[[nodiscard]] Function squeeze_excitation(Layer& layer, const std::string& prefix,
                                          std::int64_t channels, std::int64_t squeezed,
                                          bool fan_out_normal);
[[nodiscard]] Function dropout(Layer& layer, double probability);
// Huang et al., ECCV 2016, a sample at a time: 0 with this probability, else divided by the rest.
[[nodiscard]] Function stochastic_depth(Layer& layer, double probability);
[[nodiscard]] Function relu();
[[nodiscard]] Function relu6();
[[nodiscard]] Function silu();
struct PoolOptions {
    std::int64_t kernel = 2;
    std::int64_t stride = 2;
    std::int64_t padding = 0;
};
[[nodiscard]] Function max_pool2d(const PoolOptions& options);
[[nodiscard]] Function global_average_pool();  // [n, c, h, w] -> [n, c]
[[nodiscard]] Function flatten();
// Channels as a matrix [groups, rest], transposed: each group of the next convolution sees all.
[[nodiscard]] at::Tensor shuffle_channels(const at::Tensor& x, std::int64_t groups);
// One function after the other.
[[nodiscard]] Function chain(std::vector<Function> functions);

// A layer that applies functions one after the other; with `residual`, adds its input at the end.
class Composed : public Layer {
  public:
    [[nodiscard]] Tensors forward(const Tensors& inputs, bool training) override;
    std::vector<Function> functions;
    bool residual = false;
};

// Appends an empty layer to fill.
Composed& add_layer(Layers& layers, std::string name, std::string kind);

// The zoo: one file a model. `input` is one sample's shape, as the model's row in
// layer_sequence.cpp admits it.
[[nodiscard]] Layers lenet5(const std::vector<std::int64_t>& input, int num_classes);
[[nodiscard]] Layers fashion_cnn(const std::vector<std::int64_t>& input, int num_classes);
[[nodiscard]] Layers plain_cnn(const std::vector<std::int64_t>& input, int num_classes);
[[nodiscard]] Layers mobilenet_v2(const std::vector<std::int64_t>& input, int num_classes);
[[nodiscard]] Layers efficientnet_b0(const std::vector<std::int64_t>& input, int num_classes);
[[nodiscard]] Layers shufflenet_v2_x1_0(const std::vector<std::int64_t>& input, int num_classes);
[[nodiscard]] Layers shufflenet_v1_g3(const std::vector<std::int64_t>& input, int num_classes);
[[nodiscard]] Layers mobilebert(const std::vector<std::int64_t>& input, int num_classes);

}  // namespace ecopipe::zoo
