#include "fl_server/strategies/registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/log.h"
#include "fl_server/strategies/kinds.h"

namespace ecopipe {

const std::vector<StrategyKind>& strategy_kinds() {
    static const std::vector<StrategyKind> kinds = {fed_avg(),  fed_prox(),  fed_avgm(), fed_adam(),
                                                    fed_yogi(), fed_async(), fed_buff(), fed_at(),
                                                    tifl(),     eco_fl()};
    return kinds;
}

Result<const StrategyKind*> find_strategy(const std::string& name) {
    std::vector<std::string> names;
    for (const StrategyKind& kind : strategy_kinds()) {
        if (kind.name == name) return &kind;
        names.push_back(kind.name);
    }
    return fail(ExitCode::kUsage, fmt::format("strategy: expected {}, found '{}'",
                                              fmt::join(names, ", "), printable(name)));
}

Result<StrategySettings> default_settings(const std::string& name) {
    ECOPIPE_ASSIGN_OR_RETURN(const StrategyKind* kind, find_strategy(name));
    return StrategySettings{name, Parameters(kind->rules), {}, 0, {}};
}

Result<std::unique_ptr<Strategy>> make_strategy(const StrategySettings& settings) {
    ECOPIPE_ASSIGN_OR_RETURN(const StrategyKind* kind, find_strategy(settings.name));
    const std::size_t updates = kind->updates(settings.parameters);
    if (updates > 0)
        if (const std::string reason = settings.robust.refusal(updates); !reason.empty())
            return fail(ExitCode::kUsage, fmt::format("robust: {} a commit with {}'s parameters",
                                                      reason, settings.name));
    return kind->make(settings);
}

}  // namespace ecopipe
