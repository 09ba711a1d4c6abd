#include "domain/value_graph.h"

#include <algorithm>
#include <utility>

#include "core/check.h"

namespace ecopipe {

ValueGraph ValueGraph::chain(const std::vector<bool>& trainable) {
    const int layers = static_cast<int>(trainable.size());
    std::vector<ModelValue> values;
    std::vector<std::vector<int>> arguments;
    for (int i = 0; i <= layers; ++i) {
        values.push_back({i - 1, 0, {i}});
        arguments.push_back({i});
    }
    ValueGraph graph(std::move(values), std::move(arguments), trainable);
    graph.chain_ = true;
    return graph;
}

ValueGraph::ValueGraph(std::vector<ModelValue> values, std::vector<std::vector<int>> arguments,
                       std::vector<bool> trainable)
    : values_(std::move(values)),
      arguments_(std::move(arguments)),
      results_(trainable.size() + 1),
      runs_backward_(std::move(trainable)) {
    ECOPIPE_CHECK(arguments_.size() == runs_backward_.size() + 1);
    for (std::size_t i = 0; i < values_.size(); ++i) {
        const ModelValue& value = values_[i];
        ECOPIPE_CHECK(value.producer >= -1 && value.producer < layers());
        ECOPIPE_CHECK(value.consumers.empty() || value.consumers.front() > value.producer);
        std::vector<int>& results = results_[static_cast<std::size_t>(value.producer + 1)];
        ECOPIPE_CHECK(value.output == static_cast<int>(results.size()));
        results.push_back(static_cast<int>(i));
    }
    for (int layer = 0; layer < layers(); ++layer)
        for (const int value : arguments_of(layer))
            if (returns_gradient(value)) runs_backward_[static_cast<std::size_t>(layer)] = true;
}

bool ValueGraph::returns_gradient(int value) const {
    const ModelValue& facts = values_[static_cast<std::size_t>(value)];
    return facts.has_gradient && facts.producer >= 0 && runs_backward(facts.producer);
}

std::vector<int> ValueGraph::entering(LayerRange slice) const {
    std::vector<int> found;
    for (std::size_t i = 0; i < values_.size() && values_[i].producer < slice.first; ++i)
        if (std::any_of(values_[i].consumers.begin(), values_[i].consumers.end(),
                        [&](int layer) { return slice.contains(layer); }))
            found.push_back(static_cast<int>(i));
    return found;
}

std::vector<int> ValueGraph::leaving(LayerRange slice) const {
    std::vector<int> found;
    for (std::size_t i = 0; i < values_.size(); ++i)
        if (slice.contains(values_[i].producer) && !values_[i].consumers.empty() &&
            values_[i].consumers.back() > slice.last)
            found.push_back(static_cast<int>(i));
    return found;
}

}  // namespace ecopipe
