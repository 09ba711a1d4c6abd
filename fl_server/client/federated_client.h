#pragma once
// ecopipe-train as one client of a federation: trains each task's rounds through whatever engine it
// has.

#include <functional>
#include <memory>
#include <utility>

#include "fl_server/client/federation_link.h"
#include "orchestrator/train/trainer.h"
#include "stage_runtime/engine/model/models.h"

namespace ecopipe {

struct FederatedOptions {
    Endpoint server;
    std::string server_name;  // whose key the server's is, with keys
    std::string cluster;
    ModelSpec model;
    ModelInfo info;
    double timeout_s = 60;                // of a server that does not answer the first Hello
    double reconnect_timeout_s = 3600;    // of a server that has gone silent since
    std::string report_labels = "exact";  // | rounded | none
    // The layers of each stage, in order: the slices that an update goes in. Empty: one slice.
    std::function<std::vector<std::pair<int, int>>()> stages;
    bool classes = true;  // labels are classes, so that their names count
    bool tests = false;   // whether it tests the models that it gets, if asked
    // Gives the data the labels of the federation's list of classes.
    std::function<Result<void>(const std::vector<std::string>& list)> map_classes;
    // Keeps what the cluster itself trained last, when the federation has ended.
    std::function<Result<void>(const TensorMap& weights)> save_model;
};

// What a cluster tells of its labels: `rounded` to powers of two, which hides how many exactly.
[[nodiscard]] std::vector<std::uint64_t> label_report(std::vector<std::uint64_t> counts,
                                                      const std::string& how);

class FederatedClient {
  public:
    FederatedClient(NetLoop& loop, FederatedOptions options)
        : options_(std::move(options)), link_(loop) {}

    // Joins; the server's client configuration, as key-value pairs. `data` is read again when
    // `map_classes` has changed it.
    [[nodiscard]] Result<std::vector<KeyValue>> join(const DataSplits& data);
    // Serves tasks until the federation ends. Every round starts from the received weights with
    // fresh optimiser state and is keyed by (seed, version, how many tasks of that version came
    // before): a task that comes again repeats its bytes, another task never does, and neither
    // depends on what other clusters do.
    [[nodiscard]] Result<ExitCode> serve(TrainingEngine& engine, const DataSplits& data,
                                         const TrainerOptions& trainer_options, RunRecord& record,
                                         Progress& progress);

  private:
    [[nodiscard]] ClusterHello hello(const Dataset& train) const;
    // Does nothing more once the task is void.
    [[nodiscard]] Result<void> run_task(const Task& task, TrainingEngine& engine,
                                        const DataSplits& data, Trainer& trainer,
                                        const TrainerOptions& trainer_options, RunRecord& record,
                                        Progress& progress);
    [[nodiscard]] Result<std::optional<LossTotals>> evaluate(TrainingEngine& engine,
                                                             const DataSplits& data,
                                                             const TrainerOptions& trainer_options);
    [[nodiscard]] std::vector<OutgoingSlice> slices_of(const TensorMap& trained,
                                                       const std::string& bytes,
                                                       const UpdateSlice& common) const;
    // Tells the server of a device that was lost or won, once enough steps since show the new pace.
    void watch_pace(const StepPace& pace);

    FederatedOptions options_;
    FederationLink link_;
    std::uint64_t instance_ = 0;
    std::uint64_t samples_ = 0;
    std::uint64_t rounds_ = 0;
    TensorMap last_model_;
    std::string changed_;              // what happened to the cluster and was not told yet
    std::vector<double> steps_since_;  // ms
    double transfers_s_ = 0;           // of the last task
};

}  // namespace ecopipe
