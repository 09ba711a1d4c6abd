#include "stage_runtime/model/loss.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/log.h"
#include "stage_runtime/model/loss_names.h"
#include "stage_runtime/model/losses/losses.h"

namespace ecopipe {

at::Tensor targets_like(const at::Tensor& output, const at::Tensor& labels, const char* loss) {
    const bool column = output.dim() == labels.dim() + 1 && output.size(-1) == 1 &&
                        output.numel() == labels.numel();
    TORCH_CHECK(column || output.sizes() == labels.sizes(), loss,
                " expects outputs and targets of one shape, found ", output.sizes(), " and ",
                labels.sizes());
    return labels.reshape(output.sizes()).to(output.scalar_type());
}

Result<std::unique_ptr<Loss>> make_loss(const LossSpec& spec) {
    if (spec.name == "cross_entropy") return cross_entropy(spec);
    if (spec.name == "mse") return mean_squared_error();
    if (spec.name == "bce") return binary_cross_entropy();
    return fail(ExitCode::kUsage, fmt::format("--loss: expected one of {}, found '{}'",
                                              fmt::join(kLossNames, ", "), printable(spec.name)));
}

LossTotals totals_of(const LossValue& value) {
    return {value.sum.detach().item<double>(),
            value.weight.value_or(static_cast<double>(value.count)),
            static_cast<std::uint64_t>(value.count), static_cast<std::uint64_t>(value.correct),
            value.absolute_error};
}

}  // namespace ecopipe
