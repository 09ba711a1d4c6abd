#pragma once
// One layer of a sequential model, as the engine runs it. Includes torch: for .cpp files of the
// model and engine alone.

#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/random.h"

namespace ecopipe {

using Tensors = std::vector<at::Tensor>;

// A parameter or buffer under its state-dict name.
struct LayerTensor {
    std::string name;
    at::Tensor tensor;
    bool trainable = false;
    bool buffer = false;
    std::function<void(at::Tensor&, Rng&)> initialise;  // zoo models only
};

class Layer {
  public:
    virtual ~Layer() = default;
    // `inputs` and the result are what crosses the layer boundary: usually one tensor each. In
    // training mode random draws come from torch's default CPU generator, which the engine has
    // keyed for this layer, step and micro-batch.
    [[nodiscard]] virtual Tensors forward(const Tensors& inputs, bool training) = 0;

    std::string name;
    std::string kind;
    std::vector<LayerTensor> tensors;
    bool writes_input = false;  // computes in place on its input: the engine hands it a copy
    bool draws = false;         // uses the random generator in training mode
};

using Layers = std::vector<std::unique_ptr<Layer>>;

}  // namespace ecopipe
