#include "stage_runtime/engine/model/losses/losses.h"

namespace ecopipe {
namespace {

class CrossEntropy : public Loss {
  public:
    explicit CrossEntropy(const LossSpec& spec) : ignore_index_(spec.ignore_index) {
        if (!spec.class_weights.empty())
            class_weights_ = at::tensor(spec.class_weights, at::TensorOptions(at::kDouble));
    }

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
        TORCH_CHECK(!class_weights_.defined() || class_weights_.numel() == classes,
                    "expected a class weight for each of ", classes, " outputs, found ",
                    class_weights_.defined() ? class_weights_.numel() : 0);
        value.sum = class_weights_.defined()
                        ? at::cross_entropy_loss(rows, flat, class_weights_.to(rows.scalar_type()),
                                                 at::Reduction::Sum, ignore_index_)
                        : at::cross_entropy_loss(rows, flat, {}, at::Reduction::Sum, ignore_index_);
        const at::Tensor counted = flat.ne(ignore_index_);
        value.count = counted.sum().item<std::int64_t>();
        if (class_weights_.defined())
            value.weight = class_weights_.index({flat.masked_select(counted)}).sum().item<double>();
        value.correct =
            rows.detach().argmax(1).eq(flat).logical_and(counted).sum().item<std::int64_t>();
        return value;
    }

  private:
    std::int64_t ignore_index_;
    at::Tensor class_weights_;  // undefined: 1 each
};

}  // namespace

std::unique_ptr<Loss> cross_entropy(const LossSpec& spec) {
    return std::make_unique<CrossEntropy>(spec);
}

}  // namespace ecopipe
