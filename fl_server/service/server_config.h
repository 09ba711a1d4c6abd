#pragma once
// server.yaml: what an operator sets for a federation besides the flags. Strict; every key has a
// default; `config_text` prints the whole of it.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"
#include "fl_server/service/class_names.h"
#include "fl_server/service/limits.h"
#include "fl_server/simulation/settings.h"
#include "fl_server/strategies/registry.h"
#include "transport/wire/federation_messages.h"

namespace ecopipe {

// `client:` how clusters train a task. What is not set is each cluster's own flag's to say.
struct ClientSettings {
    std::optional<std::int64_t> epochs;
    std::optional<std::int64_t> batch;
    std::optional<std::int64_t> micro_batches;
    std::optional<std::string> optimizer;
    std::optional<double> lr;
    std::optional<double> momentum;
    std::optional<double> weight_decay;
    std::optional<double> mu;    // FedProx's term; else the strategy's own default
    std::optional<double> clip;  // norm of a step's gradient; 0: never

    // As they travel with a task; `strategy_mu` stands in for mu unless it is 0.
    [[nodiscard]] std::vector<KeyValue> pairs(double strategy_mu = 0) const;
};

// The simulator's; the server's is ServerLimits' own.
inline constexpr double kSimulatorNormClip = 0;
inline constexpr double kSimulatorWeightMax = 0;

struct ServerConfig {
    std::vector<StrategySettings> strategies;  // of `strategy:`, one or a list
    RobustSettings robust;
    ClientSettings client_settings;
    std::vector<KeyValue> client;  // client_settings.pairs()
    ClassNames classes;            // of `classes:`
    SimulationSettings simulation;
    ServerLimits limits;

    // What `strategy:` says of it, or its defaults, with the robust rule. Errors: kUsage for an
    // unknown name.
    [[nodiscard]] Result<StrategySettings> strategy(const std::string& name) const;
};

// What may not change over a federation's restarts, by name, as a person reads it: another rule
// would combine updates that were collected for this one.
[[nodiscard]] Result<std::map<std::string, std::string>> identity_of(
    const StrategySettings& settings, const ServerLimits& limits);

// The strategy's settings that may change over restarts, as one text; and the strategy as
// `settings` say, but with these in place of its own. Errors: kBadFile for a text that is none.
[[nodiscard]] Result<std::string> changeable_of(const StrategySettings& settings);
[[nodiscard]] Result<std::unique_ptr<Strategy>> strategy_under(StrategySettings settings,
                                                               const std::string& changeable);

// `defaults`: what stands where the text says nothing.
[[nodiscard]] Result<ServerConfig> parse_server_config(std::string_view text,
                                                       const std::string& source,
                                                       const ServerConfig& defaults = {});
// YAML with every effective value and, for strategies, its meaning; `names`: which strategies.
[[nodiscard]] Result<std::string> config_text(const ServerConfig& config,
                                              const std::vector<std::string>& names);

}  // namespace ecopipe
