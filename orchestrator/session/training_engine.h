#pragma once
// What trains: a pipeline over devices, or one process. The trainer cannot tell them apart, and the
// weights may not differ.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/host_tensor.h"
#include "core/memory_use.h"
#include "core/result.h"
#include "core/strict_json.h"
#include "stage_runtime/data/dataset.h"
#include "transport/wire/messages.h"

namespace ecopipe {

// What one device reports of a step.
struct DeviceReport {
    std::string device;
    double busy_ms = 0;
    double wait_ms = 0;
    MemoryByUse peak_memory{};  // bytes of tensors, when most were alive
    std::uint64_t sent_bytes = 0;
    std::int64_t clock_offset_ns = 0;  // add to `actions` to get the portal's clock
    std::vector<ActionTime> actions;   // when traced
};

// Something that happened to the cluster, for people and metrics.jsonl.
struct ClusterEvent {
    OrderedJson what;
    std::optional<Instant> since;  // of a pause, which ends with the next committed step
};

struct StepOutcome {
    LossTotals loss;
    std::vector<double> squared_gradient_norms;  // one a layer of the model
    int nonfinite_layer = -1;
    std::vector<DeviceReport> devices;
    std::uint64_t recovery_point = 0;  // the newest state that one loss cannot take
};

// Used by one thread. Every wait inside has a deadline; a failure names device, step and
// micro-batch.
class TrainingEngine {
  public:
    virtual ~TrainingEngine() = default;
    // Weights, buffers and, when they are among them, moments: what step `step` starts from. Fresh
    // optimiser state for what is not named. It is also what a recovery falls back to.
    [[nodiscard]] virtual Result<void> load(const TensorMap& state, std::uint64_t step = 0) = 0;
    // Starts a step; the caller may prepare the next batch before it asks for the outcome.
    [[nodiscard]] virtual Result<void> start_step(std::uint64_t step,
                                                  std::vector<Batch> micro_batches,
                                                  double loss_divisor, bool trace) = 0;
    [[nodiscard]] virtual Result<StepOutcome> finish_step() = 0;
    [[nodiscard]] virtual Result<void> commit(double learning_rate, double gradient_scale) = 0;
    // Streams a split through the model in batches of `batch` samples, which `readers` threads read
    // ahead.
    [[nodiscard]] virtual Result<LossTotals> evaluate(const Dataset& data, int batch,
                                                      int readers) = 0;
    [[nodiscard]] virtual Result<TensorMap> state(
        bool optimizer_state) = 0;  // in the model's order
    // After any of the above: the step that all have gone back to, when something failed and was
    // recovered from. Then the call came to nothing, and training goes on from that step. Once.
    [[nodiscard]] virtual std::optional<std::uint64_t> take_rewind() { return std::nullopt; }
    [[nodiscard]] virtual std::vector<ClusterEvent> take_events() { return {}; }
    // This state is safe on disk, and in `state`: a recovery falls back to it from now on.
    [[nodiscard]] virtual Result<void> set_base(const TensorMap& state, std::uint64_t step) {
        static_cast<void>(state);
        static_cast<void>(step);
        return {};
    }
    // Of each device that trained, the most bytes of tensors that it has told of so far, whatever
    // it did then.
    [[nodiscard]] virtual std::map<std::string, MemoryByUse> peak_memory() const { return {}; }
    // Training goes up to this step: what a move of layers may gain.
    virtual void train_until(std::uint64_t step) { static_cast<void>(step); }
    // The end, for every device: code kDone, or the error that ends the run.
    virtual void end(ExitCode code, const std::string& reason) = 0;
};

}  // namespace ecopipe
