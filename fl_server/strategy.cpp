#include "fl_server/strategy.h"

#include <fmt/format.h>

#include "core/log.h"

namespace ecopipe {

Result<std::unique_ptr<Strategy>> make_strategy(const std::string& name) {
    if (name == "fedavg") return make_fed_avg();
    return fail(ExitCode::kUsage,
                fmt::format("--strategy: expected fedavg, found '{}'", printable(name)));
}

}  // namespace ecopipe
