#include <cmath>

#include "stage_runtime/engine/run/optimizers/bfloat16_moments.h"
#include "stage_runtime/engine/run/optimizers/optimizers.h"

namespace ecopipe {
namespace {

class AdamInBFloat16 : public Optimizer {
  public:
    explicit AdamInBFloat16(const OptimizerSpec& spec)
        : weight_decay_(spec.weight_decay), decoupled_(spec.name == "adamw") {}

    OptimizerState fresh_state(const at::Tensor& parameter) const override {
        const auto zeros = [&] {
            return at::zeros_like(parameter, at::kBFloat16, at::MemoryFormat::Contiguous);
        };
        return {{"exp_avg", zeros()}, {"exp_avg_sq", zeros()}, {"step", at::zeros({}, at::kLong)}};
    }

    void update(at::Tensor& parameter, const at::Tensor& gradient, OptimizerState& state,
                double learning_rate) const override {
        constexpr float kBeta1 = 0.9F;
        constexpr float kBeta2 = 0.999F;
        constexpr float kEpsilon = 1e-8F;
        std::uint16_t* average = bfloat16_data(state[0].second);
        std::uint16_t* square_average = bfloat16_data(state[1].second);
        const std::int64_t step = state[2].second.add_(1).item<std::int64_t>();
        const RoundingBits draw(step);
        const auto updates = static_cast<double>(step);
        const auto rate = static_cast<float>(learning_rate / (1 - std::pow(0.9, updates)));
        const auto root = static_cast<float>(std::sqrt(1 - std::pow(0.999, updates)));
        const auto penalty = static_cast<float>(decoupled_ ? 0 : weight_decay_);
        const auto shrink = static_cast<float>(decoupled_ ? 1 - learning_rate * weight_decay_ : 1);
        over_elements(parameter, gradient, [&](float* p, const float* g, auto first, auto last) {
            for (auto i = first; i < last; ++i) {
                const std::uint32_t bits = draw(i);
                const float direction = g[i] + penalty * p[i];
                const float m = kBeta1 * widened(average[i]) + (1 - kBeta1) * direction;
                const float v =
                    kBeta2 * widened(square_average[i]) + (1 - kBeta2) * direction * direction;
                average[i] = rounded_by_chance(m, bits & 0xffffU);
                square_average[i] = rounded_by_chance(v, bits >> 16);
                p[i] = shrink * p[i] - rate * m / (std::sqrt(v) / root + kEpsilon);
            }
        });
    }

  private:
    double weight_decay_;
    bool decoupled_;
};

}  // namespace

std::unique_ptr<Optimizer> adam_in_bfloat16(const OptimizerSpec& spec) {
    return std::make_unique<AdamInBFloat16>(spec);
}

}  // namespace ecopipe
