#pragma once
// A loss by name. Includes torch.

#include "core/result.h"
#include "stage_runtime/engine/model/loss.h"

namespace ecopipe {

// Errors: kUsage for a name that is not one of kLossNames.
[[nodiscard]] Result<std::unique_ptr<Loss>> make_loss(const LossSpec& spec);

}  // namespace ecopipe
