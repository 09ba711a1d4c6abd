#include "stage_runtime/state_exchange.h"

#include <fmt/format.h>

#include <map>

#include "stage_runtime/model/state_names.h"

namespace ecopipe {

std::vector<int> StateExchange::keep(std::uint64_t step, const Executors& executors) {
    std::map<int, TensorMap> layers;
    for (const auto& executor : executors) {
        const StateNames names(executor->model());
        for (NamedTensor& entry : executor->state(true))
            if (const auto layer = names.layer_of(entry.name))
                layers[*layer].push_back(std::move(entry));
    }
    std::vector<int> kept;
    for (auto& [layer, tensors] : layers) {
        keeper_.put(step, layer, std::move(tensors));
        kept.push_back(layer);
    }
    return kept;
}

Result<void> StateExchange::load(std::uint64_t step, int layer, const Executors& executors) {
    const TensorMap* tensors = keeper_.find(step, layer);
    if (tensors == nullptr)
        return fail(ExitCode::kRunFailed,
                    fmt::format("the state of layer {} at step {} is not kept here", layer, step));
    for (const auto& executor : executors) {
        const LayerRange range = executor->range();
        if (layer < range.first || layer > range.last) continue;
        for (const NamedTensor& entry : *tensors)
            ECOPIPE_RETURN_IF_ERROR(executor->load_state(entry.name, entry.tensor));
        return {};
    }
    return fail(ExitCode::kRunFailed, fmt::format("layer {} is not on this device", layer));
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
            data_.send(to, std::move(address), (*tensors)[i].tensor);
        }
    }
}

bool StateExchange::arrived(Delivery delivery) {
    TensorAddress& address = delivery.address;
    return keeper_.add(address.step, static_cast<int>(address.producer), address.output,
                       address.outputs, {std::move(address.name), std::move(delivery.tensor)});
}

}  // namespace ecopipe
