#include "fl_server/round_strategy.h"

#include <fmt/format.h>

#include "core/log.h"

namespace ecopipe {

Result<std::unique_ptr<RoundStrategy>> make_round_strategy(const std::string& name) {
    if (name == "fedavg") return make_round_fed_avg();
    return fail(ExitCode::kUsage,
                fmt::format("--strategy: expected fedavg, found '{}'", printable(name)));
}

}  // namespace ecopipe
