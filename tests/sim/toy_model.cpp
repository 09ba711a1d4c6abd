#include "tests/sim/toy_model.h"

#include <cstring>

#include "core/random.h"

namespace ecopipe::sim {

std::uint64_t mix(std::uint64_t a, std::uint64_t b) { return keyed_seed(a, {b}); }
std::uint64_t initial_state(int layer) { return mix(1, static_cast<std::uint64_t>(layer)); }
std::uint64_t input_of(std::uint64_t step, std::uint32_t micro_batch) {
    return mix(mix(2, step), micro_batch);
}
std::uint64_t label_of(std::uint64_t step, std::uint32_t micro_batch) {
    return mix(mix(3, step), micro_batch);
}

HostTensor tensor_of(std::uint64_t value) {
    HostTensor tensor = HostTensor::allocate(DType::kI64, {1});
    std::memcpy(tensor.data(), &value, sizeof value);
    return tensor;
}

TensorMap tensors_of(std::uint64_t state) {
    return {{"value", tensor_of(state)}, {"moment", tensor_of(mix(state, 4))}};
}

const std::uint64_t* state_in(const TensorMap& tensors) {
    if (tensors.size() != 2) return nullptr;
    const std::uint64_t& value = tensors[0].tensor.as<std::uint64_t>()[0];
    const std::uint64_t moment = tensors[1].tensor.as<std::uint64_t>()[0];
    return moment == mix(value, 4) ? &value : nullptr;
}

void ToySlice::begin_step() {
    stash_.clear();
    gradients_.clear();
}

std::uint64_t ToySlice::forward(std::uint32_t micro_batch, std::uint64_t input) {
    auto& stash = stash_[micro_batch];
    for (int layer = first_; layer <= last_; ++layer) {
        stash[layer] = input;
        input = mix(input, layer == kStatelessLayer ? 5 : states_.at(layer));
    }
    return input;
}

std::uint64_t ToySlice::backward(std::uint32_t micro_batch, std::uint64_t gradient) {
    const std::map<int, std::uint64_t> inputs = stash_.at(micro_batch);
    stash_.erase(micro_batch);
    for (int layer = last_; layer >= first_; --layer) {
        if (layer == kStatelessLayer) continue;
        gradient = mix(mix(gradient, inputs.at(layer)), states_.at(layer));
        gradients_[layer] = mix(mix(gradients_[layer], micro_batch), gradient);
    }
    return gradient;
}

void ToySlice::commit(std::uint64_t step) {
    for (auto& [layer, state] : states_) state = mix(mix(state, step), gradients_[layer]);
    begin_step();
}

std::vector<std::map<int, std::uint64_t>> reference_states(std::uint64_t steps) {
    ToySlice whole(0, kLayers - 1);
    for (const int layer : kStatefulLayers) whole.load(layer, initial_state(layer));
    std::vector<std::map<int, std::uint64_t>> states{whole.states()};
    for (std::uint64_t step = 0; step < steps; ++step) {
        whole.begin_step();
        for (std::uint32_t m = 0; m < kMicroBatches; ++m) {
            const std::uint64_t output = whole.forward(m, input_of(step, m));
            static_cast<void>(whole.backward(m, mix(output, label_of(step, m))));
        }
        whole.commit(step);
        states.push_back(whole.states());
    }
    return states;
}

}  // namespace ecopipe::sim
