#include "stage_runtime/model/loss.h"

#include <fmt/format.h>

#include "core/log.h"

namespace ecopipe {
namespace {

class CrossEntropy : public Loss {
  public:
    LossValue evaluate(const Tensors& outputs, const at::Tensor& labels) const override {
        const at::Tensor& logits = outputs.at(0);
        TORCH_CHECK(logits.dim() == 2 && labels.dim() == 1 && logits.size(0) == labels.size(0),
                    "cross-entropy expects outputs [n, classes] and labels [n], found ",
                    logits.sizes(), " and ", labels.sizes());
        LossValue value;
        value.sum = at::cross_entropy_loss(logits, labels, {}, at::Reduction::Sum);
        value.count = labels.numel();
        value.correct = logits.detach().argmax(1).eq(labels).sum().item<std::int64_t>();
        return value;
    }
};

}  // namespace

Result<std::unique_ptr<Loss>> make_loss(const std::string& name) {
    if (name == "cross_entropy") return std::make_unique<CrossEntropy>();
    return fail(ExitCode::kUsage,
                fmt::format("loss: expected cross_entropy, found '{}'", printable(name)));
}

}  // namespace ecopipe
