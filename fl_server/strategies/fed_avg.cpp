#include "fl_server/strategies/kinds.h"
#include "fl_server/strategies/one_group.h"

namespace ecopipe {

// The weighted mean of a round's updates (one_group.h).
StrategyKind fed_avg() {
    return {"fedavg",
            "the sample-weighted mean of a round's updates",
            RoundRules::rules(2),
            0,
            [](const Parameters& p) { return std::size_t{p.integer("clients_per_round")}; },
            [](const StrategySettings& s) -> std::unique_ptr<Strategy> {
                return std::make_unique<OneGroup>(
                    "fedavg",
                    GroupRules{RoundRules::from(s.parameters), 1, false, s.robust, s.seed},
                    std::nullopt);
            }};
}

}  // namespace ecopipe
