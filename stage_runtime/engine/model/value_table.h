#pragma once
// The values of one pass through a slice: handed from layer to layer as the graph says, and let go
// after their last use. Includes torch.

#include <utility>
#include <vector>

#include "domain/value_graph.h"
#include "stage_runtime/engine/model/layer.h"

namespace ecopipe {

// One value's tensors: one in a graph, whatever the layer handed on in a chain.
struct PassedValue {
    int value = 0;
    Tensors tensors;
};

class ValueTable {
  public:
    // `slice`: the layers that will run, in order; the loss too where it is behind the last.
    ValueTable(const ValueGraph& graph, LayerRange slice)
        : graph_(graph), slice_(slice), tensors_(graph.values().size()) {}

    void put(int value, Tensors tensors) { at(value) = std::move(tensors); }
    // The slice's own inputs in their order: a chain's one value has all of them.
    void put_entering(const Tensors& inputs) {
        const std::vector<int> values = graph_.entering(slice_);
        if (graph_.is_chain()) return put(values.front(), inputs);
        for (std::size_t i = 0; i < values.size(); ++i) put(values[i], {inputs[i]});
    }
    // What the layer takes, in its order.
    [[nodiscard]] Tensors arguments_of(int layer) {
        const std::vector<int>& values = graph_.arguments_of(layer);
        if (values.size() == 1) return take(values.front(), layer);
        Tensors arguments;
        for (const int value : values)
            for (at::Tensor& tensor : take(value, layer)) arguments.push_back(std::move(tensor));
        return arguments;
    }
    void put_results(int layer, Tensors outputs) {
        const std::vector<int>& values = graph_.results_of(layer);
        if (graph_.is_chain()) return put(values.front(), std::move(outputs));
        for (std::size_t i = 0; i < values.size(); ++i) put(values[i], {std::move(outputs[i])});
    }
    // What enters layers of the slice that run next, as put_entering takes it.
    [[nodiscard]] Tensors entering(LayerRange layers) const {
        Tensors all;
        for (const int value : graph_.entering(layers)) {
            const Tensors& tensors = tensors_[static_cast<std::size_t>(value)];
            all.insert(all.end(), tensors.begin(), tensors.end());
        }
        return all;
    }
    // What leaves the slice, in order.
    [[nodiscard]] Tensors leaving() {
        Tensors all;
        for (const int value : graph_.leaving(slice_))
            for (at::Tensor& tensor : at(value)) all.push_back(std::move(tensor));
        return all;
    }

  private:
    [[nodiscard]] Tensors& at(int value) { return tensors_[static_cast<std::size_t>(value)]; }
    // The last of the slice that uses it takes it away.
    [[nodiscard]] Tensors take(int value, int layer) {
        const auto& consumers = graph_.values()[static_cast<std::size_t>(value)].consumers;
        if (consumers.back() == layer) return std::move(at(value));
        return at(value);
    }

    const ValueGraph& graph_;
    LayerRange slice_;
    std::vector<Tensors> tensors_;
};

}  // namespace ecopipe
