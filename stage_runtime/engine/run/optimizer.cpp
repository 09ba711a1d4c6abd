#include "stage_runtime/engine/run/optimizer.h"

#include <cmath>

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
    bool decoupled_;  // AdamW (Loshchilov and Hutter, 2019)
};

// Li et al., "Federated Optimization in Heterogeneous Networks" (MLSys 2020): FedProx. The weights
// that the round started from are part of the state, so that they move, and are saved, with the
// parameter; they are taken at the first update since the reset, whatever was loaded in between.
class Proximal : public Optimizer {
  public:
    Proximal(double mu, std::unique_ptr<Optimizer> inner) : mu_(mu), inner_(std::move(inner)) {}

    OptimizerState fresh_state(const at::Tensor& parameter) const override {
        OptimizerState state = inner_->fresh_state(parameter);
        state.emplace_back("proximal_start", at::zeros_like(parameter));
        state.emplace_back("proximal_taken", at::zeros({}, at::kLong));
        return state;
    }

    void update(at::Tensor& parameter, const at::Tensor& gradient, OptimizerState& state,
                double learning_rate) const override {
        at::Tensor& start = state[state.size() - 2].second;
        at::Tensor& taken = state.back().second;
        if (taken.item<std::int64_t>() == 0) {
            start.copy_(parameter);
            taken.fill_(1);
            inner_->update(parameter, gradient, state, learning_rate);
            return;
        }
        inner_->update(parameter, gradient.add(parameter - start, mu_), state, learning_rate);
    }

  private:
    double mu_;
    std::unique_ptr<Optimizer> inner_;
};

std::unique_ptr<Optimizer> without_proximal_term(const OptimizerSpec& spec) {
    if (spec.name == "adam" || spec.name == "adamw") return std::make_unique<Adam>(spec);
    return std::make_unique<Sgd>(spec);
}

}  // namespace

std::unique_ptr<Optimizer> make_optimizer(const OptimizerSpec& spec) {
    auto inner = without_proximal_term(spec);
    if (spec.proximal_mu == 0) return inner;
    return std::make_unique<Proximal>(spec.proximal_mu, std::move(inner));
}

}  // namespace ecopipe
