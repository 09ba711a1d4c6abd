#pragma once
// What there is to see of a run, whatever shows it: the terminal, the page, `ecopipe-train status`.
// Fed by the session (who is there), by the lines of metrics.jsonl (so that a finished run's file
// gives the same view as the run did) and by the traced actions. Read from any thread. Its memory
// does not grow with the run.

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/bounded_series.h"
#include "core/mutex.h"
#include "core/strict_json.h"
#include "orchestrator/session/session_observer.h"
#include "orchestrator/session/training_engine.h"

namespace ecopipe {

enum class RunState : std::uint8_t { kStarting, kRunning, kRecovering, kEnded, kFailed };
[[nodiscard]] const char* run_state_text(RunState state);

struct DeviceView {
    std::string name;
    std::string state = "expected";  // joined | working | spare | leaving | lost
    std::string note;                // how it was lost
    std::string layers;              // "0-3, 8-9"; "" without a part
    double busy = -1;                // share of the newest step; -1: not known yet
    double used_mib = 0;             // tensors' peak so far
    double budget_mib = 0;           // of the cluster file, else what it reported; 0: not known
    double sent_mbps = 0;            // over the newest steps
};

struct StageView {
    std::string device;
    int first_layer = 0;
    int last_layer = 0;
    int in_flight = 0;
    double mbps = 0;  // of the link to the next stage; 0: the same device, or not known
    double latency_ms = 0;
};

struct TracedAction {
    char kind = 'F';
    std::uint32_t micro_batch = 0;
    std::uint16_t slice = 0;
    double start_ms = 0;  // from the step's first action on
    double end_ms = 0;
};

struct TracedStepView {
    std::uint64_t step = 0;
    double length_ms = 0;
    std::vector<std::pair<std::string, std::vector<TracedAction>>> lanes;  // by device
};

struct RunEvent {
    std::int64_t unix_ms = 0;
    std::string kind;  // join | lost | failure | plan | recovered | moved | left | checkpoint | ...
    std::uint64_t step = 0;  // the newest committed then
    std::string text;
};

// curve ("loss") -> series ("train", "test") over steps
using Curves = std::map<std::string, std::map<std::string, BoundedSeries>>;

struct RunSnapshot {
    std::uint64_t revision = 0;
    std::string title;
    RunState state = RunState::kStarting;
    std::string state_text;  // why it failed, or what it waits for
    std::int64_t started_unix_ms = 0;
    std::int64_t step_unix_ms = 0;  // of the newest committed step; 0: none yet
    std::uint64_t step = 0;         // committed
    std::uint64_t steps = 0;        // in all; 0: not known
    double epoch = 0;
    double loss = 0;
    double samples_per_s = 0;
    double step_ms = 0;
    std::map<std::string, double> evaluation;  // the newest: "accuracy" and so on
    std::string evaluated_split;
    std::vector<DeviceView> devices;
    std::vector<StageView> stages;
    std::deque<TracedStepView> timeline;
    std::deque<RunEvent> events;  // the newest last
    Curves curves;
};

class RunView : public SessionObserver {
  public:
    static constexpr std::size_t kEventsMax = 200;
    static constexpr std::size_t kTimelineStepsMax = 4;
    static constexpr std::size_t kTimelineActionsMax = 4000;  // of all its steps, if it has several
    static constexpr std::size_t kSeriesMax = 16;             // of all curves

    // `unix_ms` is asked for the time of events.
    explicit RunView(std::function<std::int64_t()> unix_ms);

    void begin(const std::string& title) ECOPIPE_EXCLUDES(mutex_);
    void end(RunState state, const std::string& text) ECOPIPE_EXCLUDES(mutex_);
    // A device of the cluster file, before it joins.
    void expect_device(const std::string& device, double memory_mib) ECOPIPE_EXCLUDES(mutex_);
    void set_link(const std::string& a, const std::string& b, double mbps, double latency_ms)
        ECOPIPE_EXCLUDES(mutex_);
    void progress(std::uint64_t step, std::uint64_t steps, double epoch, double samples_per_s)
        ECOPIPE_EXCLUDES(mutex_);
    void event(const std::string& kind, const std::string& text) ECOPIPE_EXCLUDES(mutex_);
    // A line of metrics.jsonl: a step, an evaluation or a round. What it does not know it passes
    // over. One from a file, not `live`, tells nothing of when it was.
    void metrics_line(const OrderedJson& line, bool live = true) ECOPIPE_EXCLUDES(mutex_);
    void trace(std::uint64_t step, const std::vector<DeviceReport>& devices)
        ECOPIPE_EXCLUDES(mutex_);

    void device_joined(const std::string& device, double memory_mib) override
        ECOPIPE_EXCLUDES(mutex_);
    void device_gone(const std::string& device, const std::string& how) override
        ECOPIPE_EXCLUDES(mutex_);
    void device_leaves(const std::string& device) override ECOPIPE_EXCLUDES(mutex_);
    void failed(const std::string& cause) override ECOPIPE_EXCLUDES(mutex_);
    void plan_in_force(const Plan& plan, const std::string& cause) override
        ECOPIPE_EXCLUDES(mutex_);

    // Rises with every change; cheap.
    [[nodiscard]] std::uint64_t revision() const { return revision_; }
    [[nodiscard]] RunSnapshot snapshot() const ECOPIPE_EXCLUDES(mutex_);

  private:
    void changed() ECOPIPE_REQUIRES(mutex_);
    void add_event(const std::string& kind, std::string text) ECOPIPE_REQUIRES(mutex_);
    DeviceView& device(const std::string& name) ECOPIPE_REQUIRES(mutex_);
    void take_step(const OrderedJson& line) ECOPIPE_REQUIRES(mutex_);
    void take_evaluation(const OrderedJson& line) ECOPIPE_REQUIRES(mutex_);
    void take_events(const OrderedJson& events) ECOPIPE_REQUIRES(mutex_);
    void set_stages(const std::vector<StageView>& stages) ECOPIPE_REQUIRES(mutex_);
    void add_point(const std::string& curve, const std::string& series, double x, double y)
        ECOPIPE_REQUIRES(mutex_);

    std::function<std::int64_t()> unix_ms_;
    mutable Mutex mutex_;
    std::atomic<std::uint64_t> revision_{1};
    RunSnapshot now_ ECOPIPE_GUARDED_BY(mutex_);
    std::map<std::pair<std::string, std::string>, std::pair<double, double>> links_
        ECOPIPE_GUARDED_BY(mutex_);
};

}  // namespace ecopipe
