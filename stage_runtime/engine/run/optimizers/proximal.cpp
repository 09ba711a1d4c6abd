#include "stage_runtime/engine/run/optimizers/optimizers.h"

namespace ecopipe {
namespace {

// The weights that the round started from are part of the state, so that they move, and are saved,
// with the parameter; they are taken at the first update since the reset, whatever was loaded in
// between.
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

}  // namespace

std::unique_ptr<Optimizer> with_proximal_term(double mu, std::unique_ptr<Optimizer> inner) {
    return std::make_unique<Proximal>(mu, std::move(inner));
}

}  // namespace ecopipe
