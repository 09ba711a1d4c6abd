// ecopipe-train: trains on a cluster, on one process, or as one client of a federation;
// `ecopipe-train status` tells how a run is doing.
#include <string_view>

#include "core/command_line.h"
#include "orchestrator/program/train_command_line.h"
#include "orchestrator/program/train_run.h"
#include "orchestrator/view/status_command.h"
#include "stage_runtime/engine/model/torch_compat.h"

int main(int argc, char** argv) {
    using namespace ecopipe;
    return run_program("ecopipe-train", [&]() -> Result<ExitCode> {
        if (argc > 1 && std::string_view(argv[1]) == "status")
            return show_status(argc - 1, argv + 1);
        ECOPIPE_ASSIGN_OR_RETURN(auto options, parse_train_options(argc, argv));
        if (!options) return ExitCode::kDone;
        watch_signals();
        configure_torch(options->threads);
        warn_without_fast_blas();
        return train(std::move(*options));
    });
}
