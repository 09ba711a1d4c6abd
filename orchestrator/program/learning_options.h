#pragma once
// The flags of ecopipe-train that say how and on what to learn.

#include "core/command_line.h"
#include "orchestrator/program/train_options.h"

namespace ecopipe {

void declare_learning(CommandLine& line);
// Errors: kUsage naming the flag.
[[nodiscard]] Result<void> read_learning(const CommandLine& line, TrainOptions& options);

}  // namespace ecopipe
