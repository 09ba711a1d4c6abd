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
    bool fan_out_normal =
        false;  // torchvision's kaiming_normal_(mode="fan_out") instead of the default
};

[[nodiscard]] Function conv2d(Layer& layer, const std::string& prefix, const ConvOptions& options);
// `normal_std` > 0: weights N(0, std), bias 0; otherwise PyTorch's default.
[[nodiscard]] Function linear(Layer& layer, const std::string& prefix, std::int64_t in,
                              std::int64_t out, double normal_std = 0);
[[nodiscard]] Function batch_norm2d(Layer& layer, const std::string& prefix, std::int64_t channels);
[[nodiscard]] Function group_norm(Layer& layer, const std::string& prefix, std::int64_t groups,
                                  std::int64_t channels);
[[nodiscard]] Function dropout(Layer& layer, double probability);
[[nodiscard]] Function relu();
[[nodiscard]] Function relu6();
[[nodiscard]] Function max_pool2d(std::int64_t kernel);
[[nodiscard]] Function global_average_pool();  // [n, c, h, w] -> [n, c]
[[nodiscard]] Function flatten();

// A layer that applies functions one after the other; with `residual`, adds its input at the end.
class Composed : public Layer {
  public:
    [[nodiscard]] Tensors forward(const Tensors& inputs, bool training) override;
    std::vector<Function> functions;
    bool residual = false;
};

// Appends an empty layer to fill.
Composed& add_layer(Layers& layers, std::string name, std::string kind);

// The zoo: one file a model. `input` is one sample's shape.
[[nodiscard]] Layers lenet5(const std::vector<std::int64_t>& input, int num_classes);
[[nodiscard]] Layers fashion_cnn(const std::vector<std::int64_t>& input, int num_classes);
[[nodiscard]] Layers plain_cnn(const std::vector<std::int64_t>& input, int num_classes);
[[nodiscard]] Layers mobilenet_v2(const std::vector<std::int64_t>& input, int num_classes);

}  // namespace ecopipe::zoo
