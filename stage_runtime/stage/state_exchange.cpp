#include "stage_runtime/stage/state_exchange.h"

#include <fmt/format.h>

namespace ecopipe {

std::vector<int> StateExchange::keep(std::uint64_t step) {
    std::vector<int> kept;
    for (auto& [layer, tensors] : compute_.layer_states()) {
        keeper_.put(step, layer, tensors);
        kept.push_back(layer);
    }
    return kept;
}

Result<void> StateExchange::load(std::uint64_t step, int layer) {
    const TensorMap* tensors = keeper_.find(step, layer);
    if (tensors == nullptr)
        return fail(ExitCode::kRunFailed,
                    fmt::format("the state of layer {} at step {} is not kept here", layer, step));
    return compute_.load(layer, *tensors);
}

void StateExchange::send(const std::string& to, TensorKind kind, std::uint32_t generation,
                         std::uint64_t step, int first_layer, int last_layer) {
    for (int layer = first_layer; layer <= last_layer; ++layer) {
        const TensorMap* tensors = keeper_.find(step, layer);
        if (tensors == nullptr) continue;
        for (std::size_t i = 0; i < tensors->size(); ++i) {
            TensorAddress address;
            address.generation = generation;
            address.step = step;
            address.kind = kind;
            address.producer = static_cast<std::uint32_t>(layer);
            address.output = static_cast<std::uint16_t>(i);
            address.outputs = static_cast<std::uint16_t>(tensors->size());
            address.name = (*tensors)[i].name;
            channels_.send(to, std::move(address), (*tensors)[i].tensor);
        }
    }
}

bool StateExchange::arrived(Delivery delivery) {
    TensorAddress& address = delivery.address;
    return keeper_.add(address.step, static_cast<int>(address.producer), address.output,
                       address.outputs, {std::move(address.name), std::move(delivery.tensor)});
}

}  // namespace ecopipe
