#pragma once
// What is said of a strategy: its name, its parameters, how it is made.

#include <memory>
#include <set>
#include <string>

#include "fl_server/strategies/parameters.h"
#include "fl_server/strategies/strategy.h"
#include "fl_server/strategies/update_slot.h"

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

}  // namespace ecopipe
