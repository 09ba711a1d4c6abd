#pragma once
// The output directory of a run: metrics.jsonl, run.json, plan.json, timeline.json and the trained
// model.

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/directory_lock.h"
#include "core/files.h"
#include "core/strict_json.h"
#include "orchestrator/session/training_engine.h"
#include "orchestrator/train/checkpoint.h"
#include "orchestrator/view/run_view.h"

namespace ecopipe {

class RunRecord {
  public:
    // Creates `directory`; refuses one that holds a run already (kUsage), unless it is to be
    // resumed, one in which another process is at work (kUsage), or one that cannot be written
    // (kRunFailed). Files come to be with the first step, so that a
    // run refused before leaves none. A resumed run's metrics.jsonl loses a torn last line.
    // Everything recorded is shown to `view` too, if there is one; it outlives the record.
    [[nodiscard]] static Result<RunRecord> create(const std::string& directory, bool resume = false,
                                                  RunView* view = nullptr);

    [[nodiscard]] const std::string& directory() const { return directory_; }
    [[nodiscard]] std::string path(const std::string& name) const {
        return directory_ + "/" + name;
    }

    // One line of metrics.jsonl; a committed step comes once and in order.
    struct StepLine {
        std::uint64_t step = 0;  // from 1
        double loss = 0;
        double learning_rate = 0;
        double gradient_norm = 0;  // before it is clipped
        double step_ms = 0;
        double samples_per_s = 0;
        std::uint64_t durable_step = 0;
        OrderedJson events;  // a list
    };
    [[nodiscard]] Result<void> step(const StepLine& line, const std::vector<DeviceReport>& devices);
    // What the file holds already: the newest step, and the newest evaluation's epoch.
    [[nodiscard]] std::uint64_t recorded_steps() const { return recorded_steps_; }
    [[nodiscard]] double recorded_epochs(const std::string& split) const {
        const auto found = recorded_epochs_.find(split);
        return found == recorded_epochs_.end() ? -1 : found->second;
    }
    // With the accuracy, or in regression with the mean absolute error.
    [[nodiscard]] Result<void> evaluation(double epoch, const std::string& split,
                                          const LossTotals& loss, bool regression);
    // What cannot be written for now is said once, waits in memory and comes later: training goes
    // on. Only `finish` fails for it.
    [[nodiscard]] Result<void> metric(const OrderedJson& line);
    // Whether the actions of a step are worth their bytes: of one of many micro-batches only at the
    // end, where timeline.json will hold it, and not where it would be beyond measure.
    [[nodiscard]] static bool wants_trace(std::uint64_t step, std::uint64_t steps,
                                          std::size_t micro_batches);
    // Keeps the newest steps for timeline.json. Times of the portal's clock, in nanoseconds.
    void trace(std::uint64_t step, const std::vector<DeviceReport>& devices);

    OrderedJson run = OrderedJson::object();  // run.json, filled by whoever knows
    [[nodiscard]] Result<void> save_run() const;
    [[nodiscard]] Result<void> save_timeline() const;
    // No checkpoint knows of best weights that are not on disk.
    [[nodiscard]] Result<void> save_checkpoint(const Checkpoint& checkpoint);
    // best.safetensors: the weights with the lowest validation loss so far. Where they cannot be
    // written for now, likewise.
    [[nodiscard]] Result<void> save_best(const TensorMap& weights);
    // Writes what still waits. Errors: kRunFailed when it cannot be written now either.
    [[nodiscard]] Result<void> finish();
    // model.safetensors: the trained weights.
    [[nodiscard]] Result<void> save_model(const TensorMap& weights) const;

  private:
    RunRecord(std::string directory, DirectoryLock lock, RunView* view)
        : directory_(std::move(directory)), lock_(std::move(lock)), view_(view) {}
    [[nodiscard]] Result<void> take_up_metrics();
    [[nodiscard]] Result<void> write_best();
    struct TracedStep {
        std::uint64_t step;
        std::vector<DeviceReport> devices;
    };
    std::string directory_;
    DirectoryLock lock_;
    RunView* view_;
    std::optional<LineAppender> metrics_;
    bool told_unwritten_ = false;
    std::uint64_t lost_lines_ = 0;        // more than may wait
    std::optional<TensorMap> owed_best_;  // not on disk yet
    std::deque<TracedStep> traced_;
    std::uint64_t recorded_steps_ = 0;
    std::map<std::string, double> recorded_epochs_;  // by split
};

}  // namespace ecopipe
