#include "fl_server/strategies/kinds.h"
#include "fl_server/strategies/one_group.h"

namespace ecopipe {

// Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated
// Visual Classification" (2019): m <- beta m + delta; w <- w + lr m.
StrategyKind fed_avgm() {
    return {"fedavgm",
            "fedavg with momentum on the server",
            joined(RoundRules::rules(2),
                   {number_rule("server_lr", 1e-9, 1000, 1.0, "step of the server"),
                    number_rule("momentum", 0, 0.9999, 0.9, "of the server")}),
            0,
            [](const Parameters& p) { return std::size_t{p.integer("clients_per_round")}; },
            [](const StrategySettings& s) -> std::unique_ptr<Strategy> {
                ServerOptimizer optimizer;
                optimizer.kind = ServerOptimizer::Kind::kMomentum;
                optimizer.lr = s.parameters.number("server_lr");
                optimizer.beta1 = s.parameters.number("momentum");
                return std::make_unique<OneGroup>(
                    "fedavgm",
                    GroupRules{RoundRules::from(s.parameters), 1, false, s.robust, s.seed},
                    optimizer);
            }};
}

}  // namespace ecopipe
