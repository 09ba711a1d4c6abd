#pragma once
// The update rules. They speak of float32 parameters. Includes torch.

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "domain/optimizer_spec.h"

namespace ecopipe {

// The optimiser's tensors for one parameter: they move and are saved with it.
using OptimizerState =
    std::vector<std::pair<std::string, at::Tensor>>;  // slot name, e.g. "momentum"

// Called by the thread that owns the parameters, without autograd.
class Optimizer {
  public:
    virtual ~Optimizer() = default;
    [[nodiscard]] virtual OptimizerState fresh_state(const at::Tensor& parameter) const = 0;
    virtual void update(at::Tensor& parameter, const at::Tensor& gradient, OptimizerState& state,
                        double learning_rate) const = 0;
};

[[nodiscard]] std::unique_ptr<Optimizer> make_optimizer(const OptimizerSpec& spec);

}  // namespace ecopipe
