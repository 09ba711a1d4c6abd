#pragma once
// The losses that make_loss knows, and what they share. Includes torch.

#include "stage_runtime/engine/model/loss.h"

namespace ecopipe {

// torch.nn.CrossEntropyLoss with its weight and ignore_index: outputs [n, C] for labels [n], or
// [n, T, C] for labels [n, T].
[[nodiscard]] std::unique_ptr<Loss> cross_entropy(const LossSpec& spec);
// torch.nn.MSELoss: outputs and targets of one shape.
[[nodiscard]] std::unique_ptr<Loss> mean_squared_error();
// torch.nn.BCEWithLogitsLoss: outputs are logits, targets lie in [0, 1], of one shape.
[[nodiscard]] std::unique_ptr<Loss> binary_cross_entropy();

// Targets of the outputs' shape and type; outputs [n, 1] take targets [n]. Throws torch's error.
[[nodiscard]] at::Tensor targets_like(const at::Tensor& output, const at::Tensor& labels,
                                      const char* loss);

}  // namespace ecopipe
