#pragma once
// What training minimises: (outputs of the last layer, labels) to a sum over labels, their count,
// and how good the predictions were. One file a loss, in losses/. Includes torch.

#include <ATen/ATen.h>

#include <memory>
#include <optional>
#include <string>

#include "stage_runtime/engine/model/layer.h"
#include "transport/wire/messages.h"

namespace ecopipe {

struct LossValue {
    at::Tensor sum;  // scalar, differentiable; the batch's loss is the total of sums over the total
                     // of weights
    std::int64_t count = 0;        // labels that count
    std::optional<double> weight;  // of those labels; absent: 1 each
    std::int64_t correct = 0;      // classification: predictions equal to the label
    double absolute_error = 0;     // regression: summed over labels
};

class Loss {
  public:
    virtual ~Loss() = default;
    // Every element of `labels` is one label; it counts unless the loss ignores its value. Throws
    // torch's error when shapes, types or label values do not fit.
    [[nodiscard]] virtual LossValue evaluate(const Tensors& outputs,
                                             const at::Tensor& labels) const = 0;
};

// What a micro-batch adds to its batch's totals.
[[nodiscard]] LossTotals totals_of(const LossValue& value);

}  // namespace ecopipe
