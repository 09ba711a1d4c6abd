#pragma once
// --single: the reference.

#include <memory>

#include "orchestrator/training_engine.h"
#include "stage_runtime/engine/single_process.h"

namespace ecopipe {

[[nodiscard]] Result<std::unique_ptr<TrainingEngine>> make_single_engine(
    const ModelSpec& spec, const ExecutorOptions& options);

}  // namespace ecopipe
