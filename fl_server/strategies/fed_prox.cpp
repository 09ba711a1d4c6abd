#include "fl_server/strategies/kinds.h"
#include "fl_server/strategies/one_group.h"

namespace ecopipe {

// Li et al., "Federated Optimization in Heterogeneous Networks" (MLSys 2020): FedAvg whose clients
// minimise F_k(w) + (mu / 2) ||w - w^t||^2. The term is the clients' (`client: mu`); 0.05 is what
// the Eco-FL authors' scripts use. Unlike there it acts in every epoch, the first included.
StrategyKind fed_prox() {
    return {"fedprox",
            "fedavg with a proximal term in the clients",
            RoundRules::rules(2),
            0.05,
            [](const Parameters& p) { return std::size_t{p.integer("clients_per_round")}; },
            [](const StrategySettings& s) -> std::unique_ptr<Strategy> {
                return std::make_unique<OneGroup>(
                    "fedprox",
                    GroupRules{RoundRules::from(s.parameters), 1, false, s.robust, s.seed},
                    std::nullopt);
            }};
}

}  // namespace ecopipe
