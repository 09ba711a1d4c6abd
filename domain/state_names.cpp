#include "domain/state_names.h"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <tuple>

namespace ecopipe {
namespace {

constexpr std::string_view kOptimizer = "optimizer/";
constexpr std::string_view kCodec = "codec/";

// The state-dict name inside a slot's name, or the name itself.
std::string tensor_name(const std::string& name) {
    if (!name.starts_with(kOptimizer)) return name;
    const std::size_t slash = name.find('/', kOptimizer.size());
    return slash == std::string::npos ? std::string() : name.substr(slash + 1);
}

}  // namespace

StateNames::StateNames(const ModelInfo& info) : layers_(static_cast<int>(info.layers.size())) {
    for (const TensorInfo& tensor : info.tensors)
        places_.emplace(tensor.name, Place{tensor.layer, places_.size()});
}

std::optional<int> StateNames::layer_of(const std::string& name) const {
    if (name.starts_with(kCodec)) {
        int layer = -1;
        const char* begin = name.data() + kCodec.size();
        const auto [stop, error] = std::from_chars(begin, name.data() + name.size(), layer);
        if (error != std::errc() || layer < 0 || layer >= layers_) return std::nullopt;
        return layer;
    }
    const auto found = places_.find(tensor_name(name));
    if (found == places_.end()) return std::nullopt;
    return found->second.layer;
}

void StateNames::sort(TensorMap& state) const {
    const auto key = [&](const NamedTensor& entry) {
        const bool moment = entry.name.starts_with(kOptimizer);
        const bool residual = entry.name.starts_with(kCodec);
        const auto found = places_.find(tensor_name(entry.name));
        const std::size_t rank = found == places_.end() ? 0 : found->second.rank;
        return std::tuple(residual ? 2 : moment ? 1 : 0, rank, std::string_view(entry.name));
    };
    std::sort(state.begin(), state.end(),
              [&](const NamedTensor& a, const NamedTensor& b) { return key(a) < key(b); });
}

}  // namespace ecopipe
