#pragma once
// The strategies that there are. A new one is a file that fills a StrategyKind, and a line in
// registry.cpp.

#include <memory>
#include <string>
#include <vector>

#include "fl_server/strategies/strategy_kind.h"

namespace ecopipe {

[[nodiscard]] const std::vector<StrategyKind>& strategy_kinds();
// Errors: kUsage, listing those that there are.
[[nodiscard]] Result<const StrategyKind*> find_strategy(const std::string& name);
// With every parameter at its default.
[[nodiscard]] Result<StrategySettings> default_settings(const std::string& name);
// Errors: kUsage for an unknown name, or a robust rule that every commit of these settings would
// have too few updates for.
[[nodiscard]] Result<std::unique_ptr<Strategy>> make_strategy(const StrategySettings& settings);

}  // namespace ecopipe
