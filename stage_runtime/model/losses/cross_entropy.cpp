#include "stage_runtime/model/losses/losses.h"

namespace ecopipe {
namespace {

class CrossEntropy : public Loss {
  public:
    LossValue evaluate(const Tensors& outputs, const at::Tensor& labels) const override {
        const at::Tensor& logits = outputs.at(0);
        TORCH_CHECK(labels.scalar_type() == at::kLong,
                    "cross-entropy expects classes as labels, found numbers");
        TORCH_CHECK(
            logits.dim() >= 2 && logits.dim() <= 3 && labels.dim() == logits.dim() - 1 &&
                logits.sizes().slice(0, static_cast<std::size_t>(labels.dim())) == labels.sizes(),
            "cross-entropy expects outputs [n, classes] and labels [n], or outputs [n, T, "
            "classes] and labels [n, T], found ",
            logits.sizes(), " and ", labels.sizes());
        const std::int64_t classes = logits.size(-1);
        const at::Tensor rows = logits.reshape({-1, classes});
        const at::Tensor flat = labels.reshape({-1});
        LossValue value;
        value.sum = at::cross_entropy_loss(rows, flat, {}, at::Reduction::Sum);
        value.count = labels.numel();
        value.correct = rows.detach().argmax(1).eq(flat).sum().item<std::int64_t>();
        return value;
    }
};

}  // namespace

std::unique_ptr<Loss> cross_entropy() { return std::make_unique<CrossEntropy>(); }

}  // namespace ecopipe
