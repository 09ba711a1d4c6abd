#include "fl_server/strategies/always_busy.h"

#include <fmt/format.h>

#include "core/random.h"

namespace ecopipe {

ParameterRules BusyRules::rules() {
    return {integer_rule("clients_per_round", 0, 1000000, 0, "clients that train at once; 0: all"),
            changeable(
                integer_rule("min_clients", 1, 1000000, 2, "connected, before the first starts")),
            integer_rule("max_staleness", 0, 1000000000, 0,
                         "an update staler than this is dropped; 0: none is")};
}

BusyRules BusyRules::from(const Parameters& parameters, std::uint64_t seed) {
    return {parameters.integer("clients_per_round"), parameters.integer("min_clients"),
            parameters.integer("max_staleness"), seed};
}

void AlwaysBusy::admitted(const Update& update) {
    if (!update.task) {
        drop(update.cluster, update.sequence, "nobody is waiting for it");
    } else if (rules_.max_staleness > 0 && update.staleness > rules_.max_staleness) {
        drop(update.cluster, update.sequence,
             fmt::format("stale: {} versions, at most {} count", update.staleness,
                         rules_.max_staleness));
    } else {
        use(update);
    }
}

void AlwaysBusy::advance() {
    commit_if_due();
    if (committing() || roster().connected() < rules_.min_clients) return;
    std::vector<std::string> idle = roster().idle();
    std::size_t at_work = roster().at_work();
    while (!idle.empty() && (rules_.clients == 0 || at_work < rules_.clients)) {
        Rng rng(keyed_seed(rules_.seed, {assigned_++, 0x6173796e63}));
        const auto chosen = idle.begin() + static_cast<std::ptrdiff_t>(rng.below(idle.size()));
        assign(*chosen, 0);
        idle.erase(chosen);
        ++at_work;
    }
}

}  // namespace ecopipe
