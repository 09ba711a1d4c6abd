#include "stage_runtime/stage/state_exchange.h"

#include <fmt/format.h>

namespace ecopipe {

void send_layer(TensorChannels& channels, const std::string& to, TensorKind kind,
                std::uint32_t generation, std::uint64_t step, int layer, const TensorMap& tensors) {
    TensorAddress address;
    address.generation = generation;
    address.step = step;
    address.kind = kind;
    address.producer = static_cast<std::uint32_t>(layer);
    address.outputs = static_cast<std::uint16_t>(tensors.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        address.output = static_cast<std::uint16_t>(i);
        address.name = tensors[i].name;
        channels.send(to, address, tensors[i].tensor);
    }
}

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
        if (const TensorMap* tensors = keeper_.find(step, layer))
            send_layer(channels_, to, kind, generation, step, layer, *tensors);
    }
}

bool StateExchange::arrived(Delivery delivery) {
    TensorAddress& address = delivery.address;
    return keeper_.add(address.step, static_cast<int>(address.producer), address.output,
                       address.outputs, {std::move(address.name), std::move(delivery.tensor)});
}

}  // namespace ecopipe
