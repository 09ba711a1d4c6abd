#include "stage_runtime/engine/model/losses/make_loss.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/log.h"
#include "stage_runtime/engine/model/loss_names.h"
#include "stage_runtime/engine/model/losses/losses.h"

namespace ecopipe {

Result<std::unique_ptr<Loss>> make_loss(const LossSpec& spec) {
    if (spec.name == "cross_entropy") return cross_entropy(spec);
    if (spec.name == "mse") return mean_squared_error();
    if (spec.name == "bce") return binary_cross_entropy();
    return fail(ExitCode::kUsage, fmt::format("--loss: expected one of {}, found '{}'",
                                              fmt::join(kLossNames, ", "), printable(spec.name)));
}

}  // namespace ecopipe
