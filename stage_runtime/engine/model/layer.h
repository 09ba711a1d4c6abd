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

// A parameter or buffer under its state-dict name. One that the model has under several names (tied
// weights, a module that stands twice) has one entry a name, all with the same at::Tensor.
struct LayerTensor {
    std::string name;
    at::Tensor tensor;
    bool trainable = false;
    bool buffer = false;
    std::function<void(at::Tensor&, Rng&)> initialise;  // zoo models only
    std::string same_as{};  // the first name of this very tensor; "" when `name` is it
    bool lent = false;      // an earlier layer's under this very name, which alone saves it
    [[nodiscard]] const std::string& first_name() const { return same_as.empty() ? name : same_as; }
};

// A buffer that follows what batch norm finds in each micro-batch: it becomes
// (1 - momentum) * itself + momentum * found.
struct RunningStatistic {
    std::size_t buffer = 0;  // of the layer's tensors
    double momentum = 0.1;
};

// A batch norm that has statistics: of the layer's tensors its parameters, and the buffers that a
// training-mode forward brings up to date.
struct BatchNorm {
    std::vector<std::size_t> parameters;
    std::vector<std::size_t> buffers;
    // It is in evaluation mode whatever its layer is in. Whoever runs the norm has it, too.
    std::shared_ptr<bool> evaluates = std::make_shared<bool>(false);
};

class Layer {
  public:
    virtual ~Layer() = default;
    // `inputs` and the result are what crosses the layer boundary: usually one tensor each. In
    // training mode random draws come from torch's default CPU generator, which the engine has
    // keyed for this layer, step and micro-batch.
    [[nodiscard]] virtual Tensors forward(const Tensors& inputs, bool training) = 0;
    // For the buffers in `stateful`: brings `tensors` up to date with what the layer holds, since
    // its own forward, or that of another layer with the same module, may have replaced them.
    virtual void sync() {}
    // The layer holds `value` in place of the buffer `tensors[index]`, one of `stateful`.
    virtual void put_buffer(std::size_t index, const at::Tensor& value) {
        tensors[index].tensor = value;
    }

    std::string name;
    std::string kind;
    std::vector<LayerTensor> tensors;
    // Indices into `tensors` of buffers that a training-mode forward reads and changes by itself,
    // so that what it computes depends on them. What batch norm does to its statistics is not that.
    std::vector<std::size_t> stateful;
    // A training-mode forward changes buffers in another way than `statistics` and `counters` say:
    // several devices cannot hold the layer together.
    bool one_holder = false;
    // In the order in which a training-mode forward adds to them, and the buffers that count its
    // micro-batches.
    std::vector<RunningStatistic> statistics;
    std::vector<std::size_t> counters;
    std::vector<BatchNorm> norms;
    // Where a training-mode forward puts what it finds, one tensor for each of `statistics`, in
    // place of adding it up; null: it adds it to the buffers, and counts, at once.
    Tensors* found = nullptr;
    std::string fixed_mode;  // what does not follow training and evaluation mode, for people; or ""
    bool writes_input = false;  // computes in place on its input: the engine hands it a copy
    bool draws = false;         // uses the random generator in training mode
};

using Layers = std::vector<std::unique_ptr<Layer>>;

// What batch norm finds in a micro-batch: `normalise(mean, variance, momentum)` adds with momentum
// 1 to zeros, 1 * x + 0 * 0, so that nothing is rounded twice.
template <class Normalise>
auto find_statistics(Tensors& found, const at::Tensor& mean, const at::Tensor& variance,
                     const Normalise& normalise) {
    found.push_back(at::zeros_like(mean));
    found.push_back(at::zeros_like(variance));
    return normalise(found[found.size() - 2], found[found.size() - 1], 1.0);
}

// The layer's trainable tensors in order, each once: what gradients are taken for.
[[nodiscard]] std::vector<const LayerTensor*> distinct_trainable(const Layer& layer);

}  // namespace ecopipe
