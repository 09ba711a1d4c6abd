#include "stage_runtime/engine/run/optimizers/bfloat16_moments.h"
#include "stage_runtime/engine/run/optimizers/optimizers.h"

namespace ecopipe {
namespace {

class SgdInBFloat16 : public Optimizer {
  public:
    explicit SgdInBFloat16(const OptimizerSpec& spec)
        : momentum_(static_cast<float>(spec.momentum)),
          weight_decay_(static_cast<float>(spec.weight_decay)) {}

    OptimizerState fresh_state(const at::Tensor& parameter) const override {
        return {
            {"momentum", at::zeros_like(parameter, at::kBFloat16, at::MemoryFormat::Contiguous)},
            {"step", at::zeros({}, at::kLong)}};
    }

    void update(at::Tensor& parameter, const at::Tensor& gradient, OptimizerState& state,
                double learning_rate) const override {
        std::uint16_t* kept = bfloat16_data(state[0].second);
        const RoundingBits draw(state[1].second.add_(1).item<std::int64_t>());
        const auto rate = static_cast<float>(learning_rate);
        over_elements(parameter, gradient, [&](float* p, const float* g, auto first, auto last) {
            for (auto i = first; i < last; ++i) {
                const float direction = g[i] + weight_decay_ * p[i];
                const float velocity = momentum_ * widened(kept[i]) + direction;
                kept[i] = rounded_by_chance(velocity, draw(i) & 0xffffU);
                p[i] -= rate * velocity;
            }
        });
    }

  private:
    float momentum_;
    float weight_decay_;
};

}  // namespace

std::unique_ptr<Optimizer> sgd_in_bfloat16(const OptimizerSpec& spec) {
    return std::make_unique<SgdInBFloat16>(spec);
}

}  // namespace ecopipe
