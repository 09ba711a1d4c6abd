#pragma once
// The command line of ecopipe-train, and what a federation says instead of it.

#include <optional>
#include <string>

#include "orchestrator/program/train_options.h"

namespace ecopipe {

// Prints help or version and returns nothing to leave with code 0. Errors: kUsage.
[[nodiscard]] Result<std::optional<TrainOptions>> parse_train_options(int argc,
                                                                      const char* const* argv);

// Takes one setting of a federation's client configuration: epochs, batch, micro_batches,
// optimizer, lr, momentum, weight_decay. A flag given here that contradicts it is refused with both
// values.
[[nodiscard]] Result<void> adopt_client_setting(const std::string& key, const std::string& value,
                                                TrainOptions& options);

}  // namespace ecopipe
