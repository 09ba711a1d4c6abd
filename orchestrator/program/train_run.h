#pragma once
// One run of ecopipe-train, from parsed flags to the files in --out.

#include "orchestrator/program/train_options.h"

namespace ecopipe {

[[nodiscard]] Result<ExitCode> train(TrainOptions options);

}  // namespace ecopipe
