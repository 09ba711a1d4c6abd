#include <fmt/format.h>

#include "core/log.h"
#include "fl_server/round_average.h"

namespace ecopipe {

Result<std::unique_ptr<RoundAverage>> make_round_average(const std::string& name) {
    if (name == "fedavg") return make_fed_avg();
    return fail(ExitCode::kUsage,
                fmt::format("--strategy: expected fedavg, found '{}'", printable(name)));
}

}  // namespace ecopipe
