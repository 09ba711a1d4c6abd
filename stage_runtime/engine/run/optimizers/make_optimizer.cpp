#include "stage_runtime/engine/run/optimizers/optimizers.h"

namespace ecopipe {
namespace {

std::unique_ptr<Optimizer> without_proximal_term(const OptimizerSpec& spec) {
    const bool rounded = spec.moments == DType::kBF16;
    if (spec.name == "adafactor") return adafactor(spec);
    if (spec.name == "adam" || spec.name == "adamw")
        return rounded ? adam_in_bfloat16(spec) : adam(spec);
    return rounded && spec.momentum != 0 ? sgd_in_bfloat16(spec) : sgd(spec);
}

}  // namespace

std::unique_ptr<Optimizer> make_optimizer(const OptimizerSpec& spec) {
    auto inner = without_proximal_term(spec);
    if (spec.proximal_mu == 0) return inner;
    return with_proximal_term(spec.proximal_mu, std::move(inner));
}

}  // namespace ecopipe
