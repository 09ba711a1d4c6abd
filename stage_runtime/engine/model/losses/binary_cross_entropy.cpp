#include "stage_runtime/engine/model/losses/losses.h"

namespace ecopipe {
namespace {

class BinaryCrossEntropy : public Loss {
  public:
    LossValue evaluate(const Tensors& outputs, const at::Tensor& labels) const override {
        const at::Tensor& logits = outputs.at(0);
        const at::Tensor target = targets_like(logits, labels, "bce");
        TORCH_CHECK(target.numel() == 0 ||
                        (target.min().item<double>() >= 0 && target.max().item<double>() <= 1),
                    "bce expects targets from 0 to 1");
        LossValue value;
        value.sum =
            at::binary_cross_entropy_with_logits(logits, target, {}, {}, at::Reduction::Sum);
        value.count = labels.numel();
        value.correct = logits.detach().gt(0).eq(target.gt(0.5)).sum().item<std::int64_t>();
        return value;
    }
};

}  // namespace

std::unique_ptr<Loss> binary_cross_entropy() { return std::make_unique<BinaryCrossEntropy>(); }

}  // namespace ecopipe
