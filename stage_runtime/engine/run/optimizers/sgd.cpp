#include "stage_runtime/engine/run/optimizers/optimizers.h"

namespace ecopipe {
namespace {

class Sgd : public Optimizer {
  public:
    explicit Sgd(const OptimizerSpec& spec)
        : momentum_(spec.momentum), weight_decay_(spec.weight_decay) {}

    OptimizerState fresh_state(const at::Tensor& parameter) const override {
        if (momentum_ == 0) return {};
        return {{"momentum", at::zeros_like(parameter)}};
    }

    void update(at::Tensor& parameter, const at::Tensor& gradient, OptimizerState& state,
                double learning_rate) const override {
        at::Tensor direction =
            weight_decay_ != 0 ? gradient.add(parameter, weight_decay_) : gradient;
        if (momentum_ != 0) direction = state[0].second.mul_(momentum_).add_(direction);
        parameter.add_(direction, -learning_rate);
    }

  private:
    double momentum_;
    double weight_decay_;
};

}  // namespace

std::unique_ptr<Optimizer> sgd(const OptimizerSpec& spec) { return std::make_unique<Sgd>(spec); }

}  // namespace ecopipe
