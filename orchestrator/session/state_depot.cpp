#include "orchestrator/session/state_depot.h"

#include <fmt/format.h>

#include <utility>

#include "core/log.h"
#include "domain/state_names.h"

namespace ecopipe {

void StateDepot::set_model(ModelInfo info, const OptimizerSpec& optimizer) {
    info_ = std::move(info);
    layer_bytes_.clear();
    const std::vector<std::uint64_t> moments = optimizer_bytes(info_, optimizer);
    for (std::size_t layer = 0; layer < moments.size(); ++layer)
        if (moments[layer] > 0)
            layer_bytes_[static_cast<int>(layer)] = static_cast<double>(moments[layer]);
    for (const TensorInfo& tensor : info_.tensors) {
        const double bytes =
            static_cast<double>(checked_bytes(tensor.dtype, tensor.shape).value_or(0));
        layer_bytes_[tensor.layer] += bytes;
        for (const TiedUse& use : info_.flow.ties())
            if (use.name == tensor.name) layer_bytes_[use.user] += bytes;
    }
}

Result<void> StateDepot::set_base(const TensorMap& state, std::uint64_t step) {
    const StateNames names(info_);
    std::map<int, TensorMap> base;
    for (const NamedTensor& entry : state) {
        const std::optional<int> layer = names.layer_of(entry.name);
        if (!layer)
            return fail(ExitCode::kBadFile,
                        fmt::format("tensor {} is not of this model", printable(entry.name)));
        base[*layer].push_back(entry);
        for (const TiedUse& use : info_.flow.ties())
            if (use.name == entry.name) base[use.user].push_back(entry);
    }
    base_ = std::move(base);
    base_step_ = step;
    return {};
}

const TensorMap* StateDepot::find(std::uint64_t step, int layer) const {
    if (const TensorMap* kept = replicas_.find(step, layer)) return kept;
    const auto base = base_.find(layer);
    return base_step_ == step && base != base_.end() ? &base->second : nullptr;
}

void StateDepot::collect() {
    expected_.reset();
    fetched_.clear();
    collecting_ = true;
}

void StateDepot::collected(NamedTensor tensor) {
    if (collecting_) fetched_.push_back(std::move(tensor));
}

TensorMap StateDepot::take_collected() {
    collecting_ = false;
    StateNames(info_).sort(fetched_);
    return std::exchange(fetched_, {});
}

}  // namespace ecopipe
