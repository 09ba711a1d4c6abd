#include "fl_server/strategies/kinds.h"
#include "fl_server/strategies/one_group.h"

namespace ecopipe {
namespace {

// Reddi et al., "Adaptive Federated Optimization" (ICLR 2021), Algorithm 2, whose two rules differ
// in the mean square alone:
//   m <- b1 m + (1 - b1) delta;  w <- w + lr m / (sqrt(v) + tau)
// without bias correction, m from zero and v from tau^2; defaults as in Flower.
template <ServerOptimizer::Kind kKind>
std::unique_ptr<Strategy> make_adaptive(const StrategySettings& s) {
    const ServerOptimizer optimizer{kKind, s.parameters.number("server_lr"),
                                    s.parameters.number("beta1"), s.parameters.number("beta2"),
                                    s.parameters.number("tau")};
    return std::make_unique<OneGroup>(
        s.name, GroupRules{RoundRules::from(s.parameters), 1, false, s.robust, s.seed}, optimizer);
}

template <ServerOptimizer::Kind kKind>
StrategyKind adaptive(std::string name, std::string meaning, double server_lr) {
    return {std::move(name),
            std::move(meaning),
            joined(RoundRules::rules(2),
                   {number_rule("server_lr", 1e-9, 1000, server_lr, "step of the server"),
                    number_rule("beta1", 0, 0.9999, 0.9, "decay of the mean change"),
                    number_rule("beta2", 0, 0.999999, 0.99, "decay of the mean square"),
                    number_rule("tau", 1e-12, 1, 1e-3, "added to the root")}),
            0,
            [](const Parameters& p) { return std::size_t{p.integer("clients_per_round")}; },
            make_adaptive<kKind>};
}

}  // namespace

// v <- b2 v + (1 - b2) delta^2
StrategyKind fed_adam() {
    return adaptive<ServerOptimizer::Kind::kAdam>("fedadam", "fedavg with Adam on the server", 0.1);
}

// v <- v - (1 - b2) delta^2 sign(v - delta^2)
StrategyKind fed_yogi() {
    return adaptive<ServerOptimizer::Kind::kYogi>("fedyogi", "fedavg with Yogi on the server",
                                                  0.01);
}

}  // namespace ecopipe
