#include "stage_runtime/engine/model/losses/losses.h"

namespace ecopipe {
namespace {

class MeanSquaredError : public Loss {
  public:
    LossValue evaluate(const Tensors& outputs, const at::Tensor& labels) const override {
        const at::Tensor& output = outputs.at(0);
        const at::Tensor target = targets_like(output, labels, "mse");
        LossValue value;
        value.sum = at::mse_loss(output, target, at::Reduction::Sum);
        value.count = labels.numel();
        value.absolute_error = (output.detach() - target).abs().sum(at::kDouble).item<double>();
        return value;
    }
};

}  // namespace

std::unique_ptr<Loss> mean_squared_error() { return std::make_unique<MeanSquaredError>(); }

}  // namespace ecopipe
