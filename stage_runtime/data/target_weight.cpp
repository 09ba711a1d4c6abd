#include "stage_runtime/data/target_weight.h"

namespace ecopipe {

double target_weight(const LossSpec& loss, const HostTensor& targets) {
    if (loss.name != "cross_entropy" || targets.dtype() != DType::kI64)
        return static_cast<double>(targets.elements());
    double weight = 0;
    for (const std::int64_t target : targets.as<std::int64_t>()) {
        if (target == loss.ignore_index) continue;
        const auto index = static_cast<std::size_t>(target);
        weight += index < loss.class_weights.size() ? loss.class_weights[index] : 1.0;
    }
    return weight;
}

}  // namespace ecopipe
