#pragma once
// Which values pass between the layers of a model: who makes each one, who uses it, whether a
// gradient comes back for it. In a chain every layer hands one value to the next; in a graph a
// value may go to several layers, near and far.
//
// Layers stand in topological order, so a slice is still a range of layers. The loss counts as the
// layer behind the last, the model's inputs as made by layer -1.

#include <string>
#include <utility>
#include <vector>

#include "domain/layer_range.h"

namespace ecopipe {

struct ModelValue {
    int producer = -1;           // a layer; -1: it is an input of the model
    int output = 0;              // which of its producer's values, or which input
    std::vector<int> consumers;  // layers, ascending, each once
    bool has_gradient = true;    // else none comes back whoever is trained: integers, masks
};

// A layer that uses a tensor of an earlier one (tied weights): `home` has it, updates and saves it.
struct TiedUse {
    std::string name;
    int home = 0;
    int user = 0;
    bool trainable = false;
};

class ValueGraph {
  public:
    ValueGraph() = default;  // of no layer
    // Of a chain, whose layers hand on as many tensors together as they like: value i goes from
    // layer i - 1 to layer i. `trainable`: of each layer, whether it has something to train.
    [[nodiscard]] static ValueGraph chain(const std::vector<bool>& trainable);
    // `values` in the order of (producer, output); a producer's outputs count from 0. `arguments`:
    // of each layer and then of the loss, the values that it takes in the order in which it takes
    // them.
    ValueGraph(std::vector<ModelValue> values, std::vector<std::vector<int>> arguments,
               std::vector<bool> trainable);

    [[nodiscard]] int layers() const { return static_cast<int>(runs_backward_.size()); }
    [[nodiscard]] const std::vector<ModelValue>& values() const { return values_; }
    // Each value is one tensor. In a chain it is whatever the layer hands on.
    [[nodiscard]] bool is_chain() const { return chain_; }
    [[nodiscard]] const std::vector<int>& arguments_of(int layer) const {
        return arguments_[static_cast<std::size_t>(layer)];
    }
    [[nodiscard]] const std::vector<int>& results_of(int layer) const {
        return results_[static_cast<std::size_t>(layer + 1)];
    }

    void set_ties(std::vector<TiedUse> ties) { ties_ = std::move(ties); }
    [[nodiscard]] const std::vector<TiedUse>& ties() const { return ties_; }

    // The layer or one that it depends on has something to train.
    [[nodiscard]] bool runs_backward(int layer) const {
        return runs_backward_[static_cast<std::size_t>(layer)];
    }
    // Its producer runs backward, and it is one that has a gradient.
    [[nodiscard]] bool returns_gradient(int value) const;

    // The values that a slice takes from outside, and those of its own that are used behind it,
    // ascending.
    [[nodiscard]] std::vector<int> entering(LayerRange slice) const;
    [[nodiscard]] std::vector<int> leaving(LayerRange slice) const;

  private:
    bool chain_ = false;
    std::vector<ModelValue> values_;
    std::vector<std::vector<int>> arguments_;  // [layers()]: the loss's
    std::vector<std::vector<int>> results_;    // [0]: the inputs
    std::vector<bool> runs_backward_;
    std::vector<TiedUse> ties_;
};

}  // namespace ecopipe
