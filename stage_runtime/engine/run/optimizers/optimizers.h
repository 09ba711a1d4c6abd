#pragma once
// The optimisers that make_optimizer knows. Includes torch.

#include "stage_runtime/engine/run/optimizer.h"

namespace ecopipe {

// torch.optim.SGD (1.13): weight decay is an L2 penalty.
[[nodiscard]] std::unique_ptr<Optimizer> sgd(const OptimizerSpec& spec);

// torch.optim.Adam and AdamW (1.13): weight decay is an L2 penalty, and decoupled from the gradient
// in AdamW (Loshchilov and Hutter, 2019).
[[nodiscard]] std::unique_ptr<Optimizer> adam(const OptimizerSpec& spec);

// The same two with moments in bfloat16. Its eight bits would lose an average's small steps if they
// were rounded to the nearest: Adam's second moment, which changes by a thousandth, would never
// shrink. They are rounded up or down in proportion, by bits keyed with the step and the element
// (stochastic rounding; Gupta et al., "Deep Learning with Limited Numerical Precision", 2015).
[[nodiscard]] std::unique_ptr<Optimizer> sgd_in_bfloat16(const OptimizerSpec& spec);
[[nodiscard]] std::unique_ptr<Optimizer> adam_in_bfloat16(const OptimizerSpec& spec);

// Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost" (ICML 2018),
// with the numbers of torch.optim.Adafactor (2.5): the second moment is the product of a mean over
// rows and one over columns, the step is relative to the parameter's own size, weight decay is
// decoupled. Other than there a convolution is factored as filters by all the rest.
[[nodiscard]] std::unique_ptr<Optimizer> adafactor(const OptimizerSpec& spec);

// Li et al., "Federated Optimization in Heterogeneous Networks" (MLSys 2020): FedProx.
[[nodiscard]] std::unique_ptr<Optimizer> with_proximal_term(double mu,
                                                            std::unique_ptr<Optimizer> inner);

}  // namespace ecopipe
