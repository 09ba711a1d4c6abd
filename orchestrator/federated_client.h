#pragma once
// ecopipe-train as one client of a federation: trains each task's rounds through whatever engine it
// has.

#include <memory>

#include "orchestrator/federation_link.h"
#include "orchestrator/trainer.h"
#include "stage_runtime/model/model_spec.h"

namespace ecopipe {

struct FederatedOptions {
    Endpoint server;
    std::string server_name;  // whose key the server's is, with keys
    std::string cluster;
    ModelSpec model;
    ModelInfo info;
    double timeout_s = 60;  // of a silent server
};

class FederatedClient {
  public:
    FederatedClient(NetLoop& loop, FederatedOptions options)
        : options_(std::move(options)), link_(loop) {}

    // Joins; the server's client configuration, as key-value pairs.
    [[nodiscard]] Result<std::vector<KeyValue>> join(const Dataset& train);
    // Serves tasks until the federation ends. Every round starts from the received weights with
    // fresh optimiser state and is keyed by (seed, version), so a repeated round repeats its bytes.
    [[nodiscard]] Result<ExitCode> serve(TrainingEngine& engine, const DataSplits& data,
                                         const TrainerOptions& trainer_options, RunRecord& record,
                                         Progress& progress);

  private:
    [[nodiscard]] Result<void> run_task(const Task& task, TrainingEngine& engine, Trainer& trainer,
                                        const TrainerOptions& trainer_options, RunRecord& record,
                                        Progress& progress);

    FederatedOptions options_;
    FederationLink link_;
    std::uint64_t sequence_ = 0;
    std::uint64_t samples_ = 0;
    TensorMap last_model_;
};

}  // namespace ecopipe
