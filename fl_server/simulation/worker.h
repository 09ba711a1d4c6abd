#pragma once
// A worker process of the simulator: trains and tests with the engine that every other trainer
// uses, one thread.

#include "core/result.h"

namespace ecopipe {

// Serves the socket until the other end closes it. A kSetup's header has: model, data, channels,
// optimizer {name, momentum, weight_decay, proximal_mu}, lr, epochs, batch, clip, seed,
// evaluation_samples.
[[nodiscard]] Result<ExitCode> run_worker(int descriptor);

}  // namespace ecopipe
