#pragma once
// --single: the reference.

#include <memory>

#include "orchestrator/session/training_engine.h"
#include "stage_runtime/engine/run/single_process.h"

namespace ecopipe {

[[nodiscard]] Result<std::unique_ptr<TrainingEngine>> make_single_engine(
    const ModelSpec& spec, const ExecutorOptions& options);

}  // namespace ecopipe
