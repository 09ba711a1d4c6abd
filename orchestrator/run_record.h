#pragma once
// The output directory of a run: metrics.jsonl, run.json, plan.json, timeline.json and the trained
// model.

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "core/files.h"
#include "core/strict_json.h"
#include "orchestrator/training_engine.h"
#include "stage_runtime/model/model_spec.h"

namespace ecopipe {

class RunRecord {
  public:
    // Creates `directory`; refuses one that holds a run already (kUsage) or cannot be written
    // (kRunFailed). Files come to be with the first step, so that a run refused before leaves none.
    [[nodiscard]] static Result<RunRecord> create(const std::string& directory);

    [[nodiscard]] const std::string& directory() const { return directory_; }
    [[nodiscard]] std::string path(const std::string& name) const {
        return directory_ + "/" + name;
    }

    // One line of metrics.jsonl; a committed step comes once and in order.
    [[nodiscard]] Result<void> step(std::uint64_t step, double loss, double learning_rate,
                                    double step_ms, double samples_per_s,
                                    const std::vector<DeviceReport>& devices);
    [[nodiscard]] Result<void> evaluation(double epoch, const std::string& split,
                                          const LossSum& loss);
    [[nodiscard]] Result<void> metric(const OrderedJson& line);
    // Keeps the newest steps for timeline.json. Times of the portal's clock, in nanoseconds.
    void trace(std::uint64_t step, const std::vector<DeviceReport>& devices);

    OrderedJson run = OrderedJson::object();  // run.json, filled by whoever knows
    [[nodiscard]] Result<void> save_run() const;
    [[nodiscard]] Result<void> save_timeline() const;
    // model.safetensors, and model.pt when the model came as TorchScript.
    [[nodiscard]] Result<void> save_model(const ModelSpec& spec, const TensorMap& weights) const;

  private:
    explicit RunRecord(std::string directory) : directory_(std::move(directory)) {}
    struct TracedStep {
        std::uint64_t step;
        std::vector<DeviceReport> devices;
    };
    std::string directory_;
    std::optional<LineAppender> metrics_;
    std::deque<TracedStep> traced_;
};

}  // namespace ecopipe
