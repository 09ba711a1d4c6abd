#pragma once
// The strategies that there are. A new one is a file that fills a StrategyKind, and a line in
// registry.cpp.

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "fl_server/strategies/parameters.h"
#include "fl_server/strategies/update_slot.h"
#include "fl_server/strategy.h"

namespace ecopipe {

struct StrategySettings {
    std::string name = "fedavg";
    Parameters parameters;  // every one of the strategy's
    RobustSettings robust;
    std::uint64_t seed = 0;
    std::set<std::string> told;  // the parameters that server.yaml gives
};

struct StrategyKind {
    std::string name;
    std::string meaning;
    ParameterRules rules;
    // Of FedProx's term in the clients, unless `client: mu` says otherwise.
    double client_mu = 0;
    // Updates of a commit with these settings, 0 when all that come; for the robust rules' sake.
    std::size_t (*updates)(const Parameters&) = nullptr;
    std::unique_ptr<Strategy> (*make)(const StrategySettings&) = nullptr;
};

[[nodiscard]] const std::vector<StrategyKind>& strategy_kinds();
// Errors: kUsage, listing those that there are.
[[nodiscard]] Result<const StrategyKind*> find_strategy(const std::string& name);
// With every parameter at its default.
[[nodiscard]] Result<StrategySettings> default_settings(const std::string& name);
// Errors: kUsage for an unknown name, or a robust rule that every commit of these settings would
// have too few updates for.
[[nodiscard]] Result<std::unique_ptr<Strategy>> make_strategy(const StrategySettings& settings);

}  // namespace ecopipe
