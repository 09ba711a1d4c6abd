#pragma once
// What a slice trains: its parameters, their gradients of the step at hand, their optimiser's
// state. Includes torch.
//
// A parameter that another layer of a graph uses too (tied weights) has one home, the first of
// them. Each user adds up its own gradient over the micro-batches; the sum of these, the last
// user's first, is the parameter's. So it does not matter which of them are in this slice: what a
// user elsewhere has found is brought here before the update, and the new weight is taken there
// after it.

#include <string>
#include <vector>

#include "core/host_tensor.h"
#include "core/result.h"
#include "domain/layer_range.h"
#include "stage_runtime/engine/model/layer.h"
#include "stage_runtime/engine/run/optimizer.h"

namespace ecopipe {

struct Parameter {
    std::size_t layer;               // within the slice; of several with the same tensor, the first
    std::vector<std::string> names;  // the first names its optimiser state
    at::Tensor value;
    at::Tensor gradient;  // once `add_up` was called; undefined when nothing has one
    OptimizerState state;
};

class ParameterSet {
  public:
    ParameterSet() = default;
    // `layers` are those of the slice; trainable tensors get requires_grad.
    ParameterSet(const Layers& layers, LayerRange range, const Optimizer& optimizer);
    // A layer outside the slice uses a parameter that has its home in it. (Of the other way round
    // the layers know: such a parameter is kept without an optimiser's state.)
    void tie(const std::string& name, int home, int user);

    [[nodiscard]] std::vector<Parameter>& all() { return parameters_; }
    [[nodiscard]] const std::vector<Parameter>& all() const { return parameters_; }
    // One gradient for each of distinct_trainable(layers[layer]), of one micro-batch.
    void add(std::size_t layer, const Tensors& found);
    void add_up();  // every parameter's own and its other users' gradients become `gradient`
    void discard();

    // What layer `user` of this slice has found for a parameter with its home elsewhere.
    [[nodiscard]] at::Tensor found_by(const std::string& name, int user);
    // What a layer elsewhere has found for a parameter of this slice.
    void bring(const std::string& name, int user, at::Tensor gradient);
    // The value of a parameter that has its home elsewhere; null for any other name.
    [[nodiscard]] at::Tensor* borrowed(const std::string& name);

  private:
    struct User {  // of a parameter; of one that is not tied, the parameter itself
        std::string name;
        int layer = 0;  // of the model
        at::Tensor sum;
    };
    [[nodiscard]] std::size_t user_of(const std::string& name, int layer) const;

    LayerRange range_;
    std::vector<Parameter> parameters_;
    std::vector<User> users_;
    std::vector<std::vector<std::size_t>> users_of_layer_;      // by distinct_trainable
    std::vector<std::vector<std::size_t>> users_of_parameter_;  // the last layer's first
    std::vector<std::pair<std::string, at::Tensor>> borrowed_;
};

}  // namespace ecopipe
