#pragma once
// The gradients of the values of one micro-batch's way back through a slice. Those of a value that
// several layers use are added up as they come, which is the last user's first: one order, however
// the model is cut. Includes torch.

#include <ATen/core/grad_mode.h>

#include <utility>
#include <vector>

#include "domain/value_graph.h"
#include "stage_runtime/engine/model/layer.h"

namespace ecopipe {

class GradientTable {
  public:
    GradientTable(const ValueGraph& graph, LayerRange slice)
        : graph_(graph), slice_(slice), sums_(graph.values().size()) {}

    // What came back from outside, one gradient for each of `values`; a chain's one value has all
    // of them.
    void put_returned(const std::vector<int>& values, Tensors gradients) {
        if (graph_.is_chain()) {
            sums_[static_cast<std::size_t>(values.front())] = std::move(gradients);
            return;
        }
        for (std::size_t i = 0; i < gradients.size(); ++i)
            add_one(values[i], std::move(gradients[i]));
    }
    // Of what the layer made, `outputs` tensors: complete, since all of its users stand behind it.
    [[nodiscard]] Tensors of_results(int layer, std::size_t outputs) {
        const std::vector<int>& values = graph_.results_of(layer);
        if (graph_.is_chain()) return std::move(sums_[static_cast<std::size_t>(values.front())]);
        Tensors gradients(outputs);
        for (std::size_t i = 0; i < values.size(); ++i) {
            Tensors& sum = sums_[static_cast<std::size_t>(values[i])];
            if (!sum.empty()) gradients[i] = std::move(sum[0]);
        }
        return gradients;
    }
    // Those of the layer's inputs.
    void add(int layer, Tensors inputs) {
        const std::vector<int>& values = graph_.arguments_of(layer);
        if (graph_.is_chain()) {
            sums_[static_cast<std::size_t>(values.front())] = std::move(inputs);
            return;
        }
        for (std::size_t i = 0; i < values.size(); ++i)
            if (graph_.returns_gradient(values[i])) add_one(values[i], std::move(inputs[i]));
    }
    // Of the values that enter the slice, in order, if any of them has one.
    [[nodiscard]] Tensors entering() {
        Tensors all;
        bool some = false;
        for (const int value : graph_.entering(slice_)) {
            Tensors& sum = sums_[static_cast<std::size_t>(value)];
            const bool returns = graph_.returns_gradient(value);
            some = some || returns;
            if (graph_.is_chain()) return returns ? std::move(sum) : Tensors();
            all.push_back(returns && !sum.empty() ? std::move(sum[0]) : at::Tensor());
        }
        return some ? all : Tensors();
    }

  private:
    void add_one(int value, at::Tensor gradient) {
        if (!gradient.defined()) return;
        Tensors& sum = sums_[static_cast<std::size_t>(value)];
        if (sum.empty()) {
            sum.push_back(std::move(gradient));
            return;
        }
        const at::NoGradGuard no_grad;
        sum[0] = at::add(sum[0], gradient);
    }

    const ValueGraph& graph_;
    LayerRange slice_;
    std::vector<Tensors> sums_;  // by value
};

}  // namespace ecopipe
