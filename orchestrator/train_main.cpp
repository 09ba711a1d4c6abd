// ecopipe-train: trains on a cluster, on one process, or as one client of a federation.
#include "core/command_line.h"
#include "orchestrator/train_run.h"
#include "stage_runtime/torch_compat.h"

int main(int argc, char** argv) {
    using namespace ecopipe;
    return run_program("ecopipe-train", [&]() -> Result<ExitCode> {
        ECOPIPE_ASSIGN_OR_RETURN(auto options, parse_train_options(argc, argv));
        if (!options) return ExitCode::kDone;
        watch_signals();
        configure_torch(options->threads);
        warn_without_fast_blas();
        return train(std::move(*options));
    });
}
