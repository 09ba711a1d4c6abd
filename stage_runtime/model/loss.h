#pragma once
// What training minimises: (outputs of the last layer, labels) to a sum over labels, their count,
// and how many were right. Includes torch.

#include <ATen/ATen.h>

#include <memory>
#include <string>

#include "core/result.h"
#include "stage_runtime/model/layer.h"

namespace ecopipe {

struct LossValue {
    at::Tensor sum;  // scalar, differentiable; the batch's loss is the total of sums over the total
                     // of counts
    std::int64_t count = 0;    // labels
    std::int64_t correct = 0;  // predictions equal to the label, where that has a meaning
};

class Loss {
  public:
    virtual ~Loss() = default;
    // Throws torch's error when shapes or label values do not fit.
    [[nodiscard]] virtual LossValue evaluate(const Tensors& outputs,
                                             const at::Tensor& labels) const = 0;
};

// "cross_entropy". Errors: kUsage for an unknown name.
[[nodiscard]] Result<std::unique_ptr<Loss>> make_loss(const std::string& name);

}  // namespace ecopipe
