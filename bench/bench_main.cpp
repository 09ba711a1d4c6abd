// ecopipe-bench: picks the subcommand.

#include <fmt/format.h>

#include <array>
#include <string_view>

#include "bench/subcommands.h"
#include "core/command_line.h"
#include "core/log.h"

namespace ecopipe {
namespace {

struct Subcommand {
    const char* name;
    const char* summary;
    Result<ExitCode> (*run)(int argc, const char* const* argv);
};

constexpr std::array kSubcommands{
    Subcommand{"schedules", "simulates every schedule on the same pipeline or cluster",
               bench_schedules},
    Subcommand{"pipeline", "trains for real, in one process and in a pipeline, in turn",
               bench_pipeline},
    Subcommand{"transport", "GB/s of tensors between two devices on this machine", bench_transport},
    Subcommand{"aggregate", "GB/s of updates that a federation's server adds up", bench_aggregate},
    Subcommand{"federation", "a round of many clusters against a federation's server",
               bench_federation},
};

Result<ExitCode> run(int argc, const char* const* argv) {
    const std::string_view name = argc > 1 ? argv[1] : "";
    for (const Subcommand& subcommand : kSubcommands)
        if (name == subcommand.name) return subcommand.run(argc - 1, argv + 1);
    std::string listing;
    for (const Subcommand& subcommand : kSubcommands)
        listing += fmt::format("  {:<12} {}\n", subcommand.name, subcommand.summary);
    if (name == "--help") {
        fmt::print("ecopipe-bench SUBCOMMAND [--help]: measures and compares\n\n{}", listing);
        return ExitCode::kDone;
    }
    if (name == "--version") {
        fmt::print("ecopipe-bench {}\n", kVersion);
        return ExitCode::kDone;
    }
    return fail(
        ExitCode::kUsage,
        fmt::format("expected a subcommand (--help lists them), found '{}'", printable(name)));
}

}  // namespace
}  // namespace ecopipe

int main(int argc, char** argv) {
    return ecopipe::run_program("ecopipe-bench", [&] { return ecopipe::run(argc, argv); });
}
