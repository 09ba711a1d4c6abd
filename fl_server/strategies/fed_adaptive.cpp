#include "fl_server/strategies/kinds.h"
#include "fl_server/strategies/one_group.h"

namespace ecopipe {

// Reddi et al., "Adaptive Federated Optimization" (ICLR 2021), Algorithm 2:
//   m <- b1 m + (1 - b1) delta;  v <- b2 v + (1 - b2) delta^2;  w <- w + lr m / (sqrt(v) + tau)
// without bias correction, m from zero and v from tau^2; defaults as in Flower's FedAdam.
StrategyKind fed_adam() {
    return {"fedadam",
            "fedavg with Adam on the server",
            joined(RoundRules::rules(2),
                   {number_rule("server_lr", 1e-9, 1000, 0.1, "step of the server"),
                    number_rule("beta1", 0, 0.9999, 0.9, "decay of the mean change"),
                    number_rule("beta2", 0, 0.999999, 0.99, "decay of the mean square"),
                    number_rule("tau", 1e-12, 1, 1e-3, "added to the root")}),
            0,
            [](const Parameters& p) { return std::size_t{p.integer("clients_per_round")}; },
            [](const StrategySettings& s) -> std::unique_ptr<Strategy> {
                const ServerOptimizer optimizer{
                    ServerOptimizer::Kind::kAdam, s.parameters.number("server_lr"),
                    s.parameters.number("beta1"), s.parameters.number("beta2"),
                    s.parameters.number("tau")};
                return std::make_unique<OneGroup>(
                    "fedadam",
                    GroupRules{RoundRules::from(s.parameters), 1, false, s.robust, s.seed},
                    optimizer);
            }};
}

}  // namespace ecopipe
