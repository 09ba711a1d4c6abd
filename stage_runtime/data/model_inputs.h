#pragma once
// The inputs of data, held against those that a model takes.

#include <vector>

#include "domain/model_spec.h"
#include "stage_runtime/data/dataset.h"

namespace ecopipe {

// Afterwards every batch has the inputs in the model's order. `wanted` is empty for a model that
// takes whatever one input there is. Errors: kUsage naming the input that is missing, too many, or
// of another shape or type.
[[nodiscard]] Result<void> fit_inputs(DataSplits& data, const std::vector<ModelInput>& wanted);

}  // namespace ecopipe
