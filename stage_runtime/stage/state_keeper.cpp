#include "stage_runtime/stage/state_keeper.h"

namespace ecopipe {

void StateKeeper::put(std::uint64_t step, int layer, TensorMap tensors) {
    states_[step][layer] = {std::move(tensors), 0};
}

bool StateKeeper::add(std::uint64_t step, int layer, std::size_t index, std::size_t count,
                      NamedTensor tensor) {
    auto& layers = states_[step];
    auto at = layers.find(layer);
    if (at == layers.end()) at = layers.emplace(layer, Entry{TensorMap(count), count}).first;
    Entry& entry = at->second;
    if (index >= entry.tensors.size() || entry.tensors.size() != count ||
        entry.tensors[index].tensor.defined())
        return false;  // twice, or not of this set: the first stays
    entry.tensors[index] = std::move(tensor);
    return --entry.missing == 0;
}

const TensorMap* StateKeeper::find(std::uint64_t step, int layer) const {
    const auto at = states_.find(step);
    if (at == states_.end()) return nullptr;
    const auto of = at->second.find(layer);
    return of == at->second.end() || of->second.missing > 0 ? nullptr : &of->second.tensors;
}

void StateKeeper::drop_before(std::uint64_t step) {
    states_.erase(states_.begin(), states_.lower_bound(step));
}

void StateKeeper::rewind_to(std::uint64_t step) {
    states_.erase(states_.upper_bound(step), states_.end());
    for (auto& [at, layers] : states_)
        std::erase_if(layers, [](const auto& entry) { return entry.second.missing > 0; });
}

std::size_t StateKeeper::bytes() const {
    std::size_t sum = 0;
    for (const auto& [step, layers] : states_)
        for (const auto& [layer, entry] : layers)
            for (const NamedTensor& tensor : entry.tensors)
                if (tensor.tensor.defined()) sum += tensor.tensor.bytes();
    return sum;
}

}  // namespace ecopipe
