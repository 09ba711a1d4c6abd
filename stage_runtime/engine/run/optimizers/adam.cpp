#include <cmath>

#include "stage_runtime/engine/run/optimizers/optimizers.h"

namespace ecopipe {
namespace {

class Adam : public Optimizer {
  public:
    explicit Adam(const OptimizerSpec& spec)
        : weight_decay_(spec.weight_decay), decoupled_(spec.name == "adamw") {}

    OptimizerState fresh_state(const at::Tensor& parameter) const override {
        return {{"exp_avg", at::zeros_like(parameter)},
                {"exp_avg_sq", at::zeros_like(parameter)},
                {"step", at::zeros({}, at::kLong)}};
    }

    void update(at::Tensor& parameter, const at::Tensor& gradient, OptimizerState& state,
                double learning_rate) const override {
        constexpr double kBeta1 = 0.9;
        constexpr double kBeta2 = 0.999;
        constexpr double kEpsilon = 1e-8;
        at::Tensor& average = state[0].second;
        at::Tensor& square_average = state[1].second;
        const auto step = static_cast<double>(state[2].second.add_(1).item<std::int64_t>());
        const bool penalised = weight_decay_ != 0 && !decoupled_;
        const at::Tensor direction = penalised ? gradient.add(parameter, weight_decay_) : gradient;
        if (weight_decay_ != 0 && decoupled_) parameter.mul_(1 - learning_rate * weight_decay_);
        average.mul_(kBeta1).add_(direction, 1 - kBeta1);
        square_average.mul_(kBeta2).addcmul_(direction, direction, 1 - kBeta2);
        const double correction1 = 1 - std::pow(kBeta1, step);
        const double correction2 = 1 - std::pow(kBeta2, step);
        const at::Tensor denominator =
            square_average.sqrt().div_(std::sqrt(correction2)).add_(kEpsilon);
        parameter.addcdiv_(average, denominator, -learning_rate / correction1);
    }

  private:
    double weight_decay_;
    bool decoupled_;
};

}  // namespace

std::unique_ptr<Optimizer> adam(const OptimizerSpec& spec) { return std::make_unique<Adam>(spec); }

}  // namespace ecopipe
