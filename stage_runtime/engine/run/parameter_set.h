#pragma once
// What a slice trains: its parameters, their gradients of the step at hand, their optimiser's
// state. Includes torch.
//
// A parameter that another layer of a graph uses too (tied weights) has one home, the first of
// them. Each user adds up its own gradient over the micro-batches (sum_blocks.h); the sum of these,
// the last user's first, is the parameter's. So it does not matter which of them are in this slice:
// what a user elsewhere has found is brought here before the update, and the new weight is taken
// there after it.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/host_tensor.h"
#include "core/result.h"
#include "domain/layer_range.h"
#include "domain/sum_blocks.h"
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
    ParameterSet(const Layers& layers, LayerRange range, const Optimizer& optimizer, SumTree tree);
    // A layer outside the slice uses a parameter that has its home in it. (Of the other way round
    // the layers know: such a parameter is kept without an optimiser's state.)
    void tie(const std::string& name, int home, int user);

    [[nodiscard]] std::vector<Parameter>& all() { return parameters_; }
    [[nodiscard]] const std::vector<Parameter>& all() const { return parameters_; }
    // One gradient for each of distinct_trainable(layers[layer]), of one micro-batch; those of a
    // block in order.
    void add(std::size_t layer, std::uint32_t micro_batch, const Tensors& found);
    void add_up();  // every parameter's own and its other users' gradients become `gradient`
    void discard();

    // Of a layer's parameters, each with the first layer of the slice that has it, in one order on
    // every device; undefined where nothing was found. At one node of the tree, taken out of it or
    // put there; and over all.
    [[nodiscard]] Tensors values_of(std::size_t layer) const;
    [[nodiscard]] Tensors take(std::size_t layer, int node);
    void put(std::size_t layer, int node, Tensors sums);
    [[nodiscard]] Tensors totals(std::size_t layer);
    void put_totals(std::size_t layer, Tensors totals);

    // What layer `user` of this slice has found for a parameter with its home elsewhere.
    [[nodiscard]] at::Tensor found_by(const std::string& name, int user);
    // What a layer elsewhere has found for a parameter of this slice.
    void bring(const std::string& name, int user, at::Tensor gradient);
    // The value of a parameter that has its home elsewhere; null for any other name.
    [[nodiscard]] at::Tensor* borrowed(const std::string& name);

  private:
    struct User {  // of a parameter; of one that is not tied, the parameter itself
        std::string name;
        int layer = 0;  // of the model; of a parameter of the slice the first that has it
        at::Tensor value;
        std::vector<std::optional<at::Tensor>> sums{};  // by node of the tree
        at::Tensor total{};
    };
    // Of all blocks; undefined where nothing was found.
    const at::Tensor& total_of(User& user);
    [[nodiscard]] std::size_t user_of(const std::string& name, int layer) const;
    [[nodiscard]] std::vector<std::size_t> first_users(std::size_t layer) const;
    [[nodiscard]] at::Tensor sum_at(User& user, int node);

    LayerRange range_;
    SumTree tree_;
    std::vector<Parameter> parameters_;
    std::vector<User> users_;
    std::vector<std::vector<std::size_t>> users_of_layer_;      // by distinct_trainable
    std::vector<std::vector<std::size_t>> users_of_parameter_;  // the last layer's first
    std::vector<std::pair<std::string, at::Tensor>> borrowed_;
};

}  // namespace ecopipe
