#include "tests/sim/toy_model.h"

#include <fmt/format.h>

#include <cstring>

#include "core/random.h"
#include "stage_runtime/data/evaluation_reader.h"

namespace ecopipe::sim {

std::uint64_t mix(std::uint64_t a, std::uint64_t b) { return keyed_seed(a, {b}); }
std::uint64_t initial_state(int layer) { return mix(1, static_cast<std::uint64_t>(layer)); }
std::uint64_t digest(const HostTensor& tensor) {
    std::uint64_t sum = 2;
    for (std::size_t at = 0; at < tensor.bytes(); ++at)
        sum = mix(sum, static_cast<std::uint64_t>(tensor.data()[at]));
    return sum;
}
LossTotals loss_of(std::uint64_t output, std::uint64_t label) {
    LossTotals loss;
    loss.sum = static_cast<double>(mix(output, label) % 1000) / 8;
    loss.weight = 1;
    loss.labels = 1;
    return loss;
}

HostTensor tensor_of(const std::vector<std::uint64_t>& values) {
    HostTensor tensor =
        HostTensor::allocate(DType::kI64, {static_cast<std::int64_t>(values.size())});
    std::memcpy(tensor.data(), values.data(), tensor.bytes());
    return tensor;
}
HostTensor tensor_of(std::uint64_t value) { return tensor_of(std::vector<std::uint64_t>{value}); }

TensorMap tensors_of(int layer, std::uint64_t state) {
    return {{fmt::format("{}.value", layer), tensor_of(state)},
            {fmt::format("{}.moment", layer), tensor_of(mix(state, 4))}};
}

const ValueGraph& toy_flow(ToyKind kind) {
    const std::vector<bool> trainable(kLayers, true);
    static const ValueGraph chain = ValueGraph::chain(trainable);
    static ValueGraph graph({{-1, 0, {0, 4}},
                             {0, 0, {1, 3, 5}},
                             {1, 0, {2, 4}},
                             {2, 0, {3}},
                             {3, 0, {4}},
                             {3, 1, {5}},
                             {4, 0, {5}},
                             {5, 0, {6}}},
                            {{0}, {1}, {2}, {3, 1}, {4, 2, 0}, {6, 5, 1}, {7}}, trainable);
    if (graph.ties().empty()) graph.set_ties({{"1.value", 1, 5, true}});
    return kind == ToyKind::kChain ? chain : graph;
}

ModelInfo model_info(ToyKind kind) {
    ModelInfo info;
    info.layers.resize(kLayers);
    info.flow = toy_flow(kind);
    for (const int layer : kStatefulLayers)
        for (const NamedTensor& entry : tensors_of(layer, 0))
            info.tensors.push_back(
                {entry.name, DType::kI64, {1}, layer, entry.name.ends_with("value")});
    return info;
}

const std::uint64_t* state_in(const TensorMap& tensors) {
    if (tensors.size() != 2) return nullptr;
    const std::uint64_t& value = tensors[0].tensor.as<std::uint64_t>()[0];
    const std::uint64_t moment = tensors[1].tensor.as<std::uint64_t>()[0];
    return moment == mix(value, 4) ? &value : nullptr;
}

void ToySlice::begin_step() {
    stash_.clear();
    found_.clear();
    gradients_.clear();
    tied_gradients_.clear();
    statistics_.clear();
}

void ToySlice::count(Sum& sum, std::uint32_t micro_batch, std::uint64_t gradient) const {
    sum.nodes.resize(static_cast<std::size_t>(tree_.nodes()));
    auto& leaf = sum.nodes[static_cast<std::size_t>(tree_.leaf(tree_.block_of(micro_batch)))];
    leaf = mix(mix(leaf.value_or(0), micro_batch), gradient);
}

std::optional<std::uint64_t> ToySlice::sum_at(Sum& sum, int node) const {
    if (sum.nodes.empty()) return std::nullopt;
    return fold_sum(tree_, sum.nodes, node, mix);
}

std::optional<std::uint64_t> ToySlice::total_of(Sum& sum) const {
    if (!sum.nodes.empty()) sum.total = sum_at(sum, 0);
    sum.nodes.clear();
    return sum.total;
}

std::vector<int> ToySlice::summed_layers() const {
    std::vector<int> layers;
    for (int layer = layers_.first; layer <= layers_.last; ++layer)
        if (layer != kStatelessLayer) layers.push_back(layer);
    return layers;
}

std::vector<ToySlice::Sum*> ToySlice::sums_of(int layer) {
    std::vector<Sum*> sums{&gradients_[layer]};
    for (const TiedUse& use : flow_->ties())
        if (use.user == layer) sums.push_back(&tied_gradients_[layer]);
    return sums;
}

LayerGradient ToySlice::take_sum(int layer, int node) {
    std::vector<std::uint64_t> values;
    for (Sum* sum : sums_of(layer)) values.push_back(sum_at(*sum, node).value());
    return {tensor_of(values), ""};
}

void ToySlice::add_sum(int layer, int node, const LayerGradient& sum) {
    std::size_t at = 0;
    for (Sum* own : sums_of(layer)) {
        own->nodes.resize(static_cast<std::size_t>(tree_.nodes()));
        own->nodes[static_cast<std::size_t>(node)] = sum.values.as<std::uint64_t>()[at++];
    }
}

LayerGradient ToySlice::total(int layer) {
    for (Sum* sum : sums_of(layer)) {
        const std::optional<std::uint64_t> total = total_of(*sum);
        sum->nodes.assign(static_cast<std::size_t>(tree_.nodes()), std::nullopt);
        sum->nodes.front() = total;
    }
    const LayerGradient total = take_sum(layer, 0);
    set_total(layer, total);
    return total;
}

void ToySlice::set_total(int layer, const LayerGradient& total) {
    std::size_t at = 0;
    for (Sum* sum : sums_of(layer)) {
        sum->nodes.clear();
        sum->total = total.values.as<std::uint64_t>()[at++];
    }
}

std::vector<std::uint64_t> ToySlice::forward(std::uint32_t micro_batch,
                                             const std::vector<std::uint64_t>& entering) {
    auto& stash = stash_[micro_batch];
    statistics_[micro_batch].clear();
    std::map<int, std::uint64_t> values;
    const std::vector<int> from = flow_->entering(layers_);
    for (std::size_t i = 0; i < from.size(); ++i) values[from[i]] = entering.at(i);
    for (int layer = layers_.first; layer <= layers_.last; ++layer) {
        std::uint64_t input = 6;
        for (const int value : flow_->arguments_of(layer)) input = mix(input, values.at(value));
        stash[layer] = input;
        statistics_[micro_batch].push_back(input);
        std::uint64_t made = mix(input, layer == kStatelessLayer ? 5 : states_.at(layer));
        for (const TiedUse& use : flow_->ties())
            if (use.user == layer) made = mix(made, tied_state(use));
        for (const int value : flow_->results_of(layer))
            values[value] = mix(made, static_cast<std::uint64_t>(value));
    }
    std::vector<std::uint64_t> leaving;
    for (const int value : flow_->leaving(layers_)) leaving.push_back(values.at(value));
    return leaving;
}

std::vector<std::uint64_t> ToySlice::input_gradients(std::uint32_t micro_batch,
                                                     const std::vector<std::uint64_t>& returned) {
    std::vector<Found>& found = found_[micro_batch];
    const std::map<int, std::uint64_t> inputs = stash_.at(micro_batch);
    stash_.erase(micro_batch);
    std::map<int, std::uint64_t> sums;
    const auto add = [&](int value, std::uint64_t gradient) {
        const auto [at, fresh] = sums.emplace(value, gradient);
        if (!fresh) at->second = mix(at->second, gradient);
    };
    for (std::size_t i = 0; i < returns_.size(); ++i) add(returns_[i], returned.at(i));
    for (int layer = layers_.last; layer >= layers_.first; --layer) {
        std::uint64_t gradient = 7;
        for (const int value : flow_->results_of(layer)) gradient = mix(gradient, sums.at(value));
        if (layer != kStatelessLayer) {
            gradient = mix(mix(gradient, inputs.at(layer)), states_.at(layer));
            found.push_back({layer, false, gradient});
        }
        for (const TiedUse& use : flow_->ties())
            if (use.user == layer) {
                gradient = mix(gradient, tied_state(use));
                found.push_back({layer, true, gradient});
            }
        for (const int value : flow_->arguments_of(layer))
            if (flow_->returns_gradient(value))
                add(value, mix(gradient, static_cast<std::uint64_t>(value)));
    }
    std::vector<std::uint64_t> entering;
    for (const int value : flow_->entering(layers_))
        entering.push_back(flow_->returns_gradient(value) ? sums.at(value) : 0);
    return entering;
}

void ToySlice::weight_gradients(std::uint32_t micro_batch) {
    for (const Found& each : found_.at(micro_batch))
        count((each.tied ? tied_gradients_ : gradients_)[each.layer], micro_batch, each.gradient);
    found_.erase(micro_batch);
}

void ToySlice::commit(std::uint64_t step) {
    std::map<int, std::uint64_t> found;
    for (auto& [layer, sum] : gradients_) found[layer] = total_of(sum).value();
    for (const TiedUse& use : flow_->ties())
        if (layers_.contains(use.home))
            found[use.home] = mix(total_of(tied_gradients_.at(use.user)).value(), found[use.home]);
    for (auto& [layer, state] : states_) {
        state = mix(mix(state, step), found[layer]);
        for (const auto& [micro_batch, each] : statistics_)
            state = mix(state, each.at(static_cast<std::size_t>(layer - layers_.first)));
    }
    begin_step();
}

HostTensor ToySlice::statistics(std::uint32_t micro_batch) const {
    return tensor_of(statistics_.at(micro_batch));
}

void ToySlice::add_statistics(std::uint32_t micro_batch, const HostTensor& found) {
    const auto values = found.as<std::uint64_t>();
    statistics_[micro_batch].assign(values.begin(), values.end());
}

TensorMap checkpoint_of(const ToyStates& states) {
    TensorMap all;
    for (const auto& [layer, state] : states)
        for (NamedTensor& entry : tensors_of(layer, state)) all.push_back(std::move(entry));
    return all;
}

std::optional<ToyStates> states_in(const TensorMap& checkpoint) {
    ToyStates states;
    if (checkpoint.size() != 2 * kStatefulLayers.size()) return std::nullopt;
    for (std::size_t i = 0; i < kStatefulLayers.size(); ++i) {
        const TensorMap layer{checkpoint[2 * i], checkpoint[2 * i + 1]};
        const std::uint64_t* state = state_in(layer);
        if (state == nullptr) return std::nullopt;
        states[kStatefulLayers[i]] = *state;
    }
    return states;
}

TensorMap WholeModel::initial() {
    ToyStates states;
    for (const int layer : kStatefulLayers) states[layer] = initial_state(layer);
    return checkpoint_of(states);
}

Result<void> WholeModel::load(const TensorMap& state, std::uint64_t) {
    const auto states = states_in(state);
    if (!states) return fail(ExitCode::kBadFile, "not a state of the toy model");
    for (const auto& [layer, value] : *states) layers_.load(layer, value);
    states_ = {*states};
    return {};
}

Result<void> WholeModel::start_step(std::uint64_t, std::vector<Batch> micro_batches, double, bool) {
    layers_.begin_step();
    loss_ = {};
    for (std::uint32_t m = 0; m < micro_batches.size(); ++m) {
        const std::uint64_t label = digest(micro_batches[m].labels);
        const std::uint64_t output = layers_.forward(m, {digest(micro_batches[m].inputs)}).front();
        loss_.add(loss_of(output, label));
        static_cast<void>(layers_.input_gradients(m, {mix(output, label)}));
        layers_.weight_gradients(m);
    }
    return {};
}

Result<StepOutcome> WholeModel::finish_step() {
    StepOutcome outcome;
    outcome.loss = loss_;
    return outcome;
}

Result<void> WholeModel::commit(double, double) {
    layers_.commit(states_.size() - 1);
    states_.push_back(layers_.states());
    return {};
}

Result<LossTotals> WholeModel::evaluate(const Dataset& data, int batch, int readers) {
    LossTotals loss;
    EvaluationReader reader(data, batch, readers);
    for (std::uint64_t m = 0; m < reader.count(); ++m) {
        ECOPIPE_ASSIGN_OR_RETURN(const Batch part, reader.take());
        const auto id = static_cast<std::uint32_t>(m);
        loss.add(loss_of(layers_.forward(id, {digest(part.inputs)}).front(), digest(part.labels)));
    }
    layers_.begin_step();
    return loss;
}

}  // namespace ecopipe::sim
