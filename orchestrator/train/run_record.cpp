#include "orchestrator/train/run_record.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "core/log.h"
#include "stage_runtime/data/safetensors.h"

namespace ecopipe {
namespace {
constexpr std::size_t kTracedStepsMax = 20;
constexpr std::size_t kAlwaysTraced = 1024;  // micro-batches: some 50 KB from each device
constexpr std::size_t kEverTraced = 65536;
constexpr std::size_t kMetricsBytesMax = 4ULL << 30;
constexpr std::size_t kWaitingBytesMax = 16U << 20;  // of lines, some 50,000 steps
}  // namespace

Result<RunRecord> RunRecord::create(const std::string& directory, bool resume, RunView* view) {
    ECOPIPE_RETURN_IF_ERROR(make_directories(directory));
    for (const char* name : {"run.json", "metrics.jsonl", "model.safetensors", "checkpoints"})
        if (!resume && std::filesystem::exists(directory + "/" + name))
            return fail(ExitCode::kUsage,
                        fmt::format("--out {}: holds a run already ({}); give another directory, "
                                    "or --resume to go on with it",
                                    directory, name));
    if (::access(directory.c_str(), W_OK) != 0)
        return fail(ExitCode::kRunFailed, fmt::format("--out {}: cannot be written", directory));
    // Before anything of it is read.
    ECOPIPE_ASSIGN_OR_RETURN(DirectoryLock lock, DirectoryLock::take(directory, "--out"));
    RunRecord record(directory, std::move(lock), view);
    if (resume) ECOPIPE_RETURN_IF_ERROR(record.take_up_metrics());
    return record;
}

Result<void> RunRecord::take_up_metrics() {
    const std::string file = path("metrics.jsonl");
    if (!std::filesystem::exists(file)) return {};
    ECOPIPE_ASSIGN_OR_RETURN(std::string text, read_file(file, kMetricsBytesMax));
    const std::size_t whole = text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1;
    if (whole < text.size()) {  // the crash came while a line was written
        text.resize(whole);
        ECOPIPE_RETURN_IF_ERROR(write_file_atomically(file, text));
    }
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = text.find('\n', begin);
        const OrderedJson line =
            OrderedJson::parse(text.substr(begin, end - begin), nullptr, false);
        begin = end + 1;
        if (!line.is_object()) continue;
        if (view_ != nullptr) view_->metrics_line(line, false);
        if (const auto step = line.find("step"); step != line.end() && step->is_number_unsigned())
            recorded_steps_ = std::max(recorded_steps_, step->get<std::uint64_t>());
        const auto epoch = line.find("epoch");
        const auto split = line.find("split");
        if (epoch != line.end() && epoch->is_number() && split != line.end() &&
            split->is_string()) {
            double& newest =
                recorded_epochs_.try_emplace(split->get<std::string>(), -1).first->second;
            newest = std::max(newest, epoch->get<double>());
        }
    }
    return {};
}

Result<void> RunRecord::step(const StepLine& done, const std::vector<DeviceReport>& devices) {
    OrderedJson line{{"step", done.step},
                     {"loss", done.loss},
                     {"lr", done.learning_rate},
                     {"gradient_norm", done.gradient_norm},
                     {"step_ms", done.step_ms},
                     {"samples_per_s", done.samples_per_s},
                     {"durable_step", done.durable_step}};
    if (!done.events.empty()) line["event"] = done.events;
    recorded_steps_ = done.step;
    OrderedJson stages = OrderedJson::array();
    for (const DeviceReport& device : devices)
        stages.push_back({{"device", device.device},
                          {"busy_ms", device.busy_ms},
                          {"wait_ms", device.wait_ms},
                          {"peak_bytes", device.peak_memory.total()},
                          {"sent_bytes", device.sent_bytes}});
    line["stages"] = std::move(stages);
    return metric(line);
}

Result<void> RunRecord::evaluation(double epoch, const std::string& split, const LossTotals& loss,
                                   bool regression) {
    recorded_epochs_[split] = epoch;
    if (owed_best_)
        if (const auto written = write_best(); written)
            log_warn("{}: it is written now", path("best.safetensors"));
    OrderedJson line{{"epoch", epoch}, {"split", split}, {"loss", loss.loss()}};
    if (regression) {
        line["mean_absolute_error"] = loss.mean_absolute_error();
    } else {
        line["accuracy"] = loss.accuracy();
    }
    return metric(line);
}

Result<void> RunRecord::metric(const OrderedJson& line) {
    if (view_ != nullptr) view_->metrics_line(line);
    if (!metrics_) {
        ECOPIPE_ASSIGN_OR_RETURN(LineAppender opened, LineAppender::open(path("metrics.jsonl")));
        metrics_.emplace(std::move(opened));
    }
    if (metrics_->waiting_bytes() > kWaitingBytesMax && !metrics_->flush()) {
        ++lost_lines_;
        return {};
    }
    const auto written = metrics_->append(line.dump());
    if (!written && !std::exchange(told_unwritten_, true))
        log_error("{}; its lines wait in memory, training goes on", written.error().message);
    if (written && std::exchange(told_unwritten_, false))
        log_warn("{}: it is written again", path("metrics.jsonl"));
    return {};
}

Result<void> RunRecord::finish() {
    if (owed_best_) ECOPIPE_RETURN_IF_ERROR(write_best());
    if (metrics_) ECOPIPE_RETURN_IF_ERROR(metrics_->flush());
    if (lost_lines_ > 0)
        return fail(ExitCode::kRunFailed,
                    fmt::format("{}: {} lines are lost: it could not be written for too long",
                                path("metrics.jsonl"), lost_lines_));
    return {};
}

Result<void> RunRecord::save_checkpoint(const Checkpoint& checkpoint) {
    if (owed_best_) ECOPIPE_RETURN_IF_ERROR(write_best());
    ECOPIPE_RETURN_IF_ERROR(CheckpointStore(path("checkpoints")).write(checkpoint));
    if (view_ != nullptr)
        view_->event("checkpoint", fmt::format("the state of step {} is on disk", checkpoint.step));
    return {};
}

bool RunRecord::wants_trace(std::uint64_t step, std::uint64_t steps, std::size_t micro_batches) {
    if (micro_batches <= kAlwaysTraced) return true;
    return micro_batches <= kEverTraced && step + kTracedStepsMax >= steps;
}

void RunRecord::trace(std::uint64_t step, const std::vector<DeviceReport>& devices) {
    if (view_ != nullptr) view_->trace(step, devices);
    traced_.push_back({step, devices});
    if (traced_.size() > kTracedStepsMax) traced_.pop_front();
}

Result<void> RunRecord::save_run() const {
    return write_file_atomically(path("run.json"), run.dump(2) + "\n");
}

Result<void> RunRecord::save_timeline() const {
    OrderedJson events = OrderedJson::array();
    std::int64_t origin = INT64_MAX;
    for (const TracedStep& traced : traced_)
        for (const DeviceReport& device : traced.devices)
            for (const ActionTime& action : device.actions)
                origin = std::min(origin, action.start_ns + device.clock_offset_ns);
    if (!traced_.empty()) {
        for (std::size_t i = 0; i < traced_.back().devices.size(); ++i)
            events.push_back({{"name", "process_name"},
                              {"ph", "M"},
                              {"pid", i},
                              {"tid", 0},
                              {"args", {{"name", traced_.back().devices[i].device}}}});
    }
    for (const TracedStep& traced : traced_) {
        for (std::size_t i = 0; i < traced.devices.size(); ++i) {
            const DeviceReport& device = traced.devices[i];
            for (const ActionTime& action : device.actions)
                events.push_back(
                    {{"name", fmt::format("{}{}", action.kind, action.micro_batch)},
                     {"cat", action.kind == 'F' ? "forward" : "backward"},
                     {"ph", "X"},
                     {"ts",
                      static_cast<double>(action.start_ns + device.clock_offset_ns - origin) / 1e3},
                     {"dur", static_cast<double>(action.end_ns - action.start_ns) / 1e3},
                     {"pid", i},
                     {"tid", 0},
                     {"args", {{"step", traced.step}, {"slice", action.slice}}}});
        }
    }
    const OrderedJson trace{{"displayTimeUnit", "ms"}, {"traceEvents", std::move(events)}};
    return write_file_atomically(path("timeline.json"), trace.dump() + "\n");
}

Result<void> RunRecord::save_best(const TensorMap& weights) {
    owed_best_ = weights;
    if (const auto written = write_best(); !written)
        log_error("{}; the best weights wait in memory, training goes on", written.error().message);
    return {};
}

Result<void> RunRecord::write_best() {
    ECOPIPE_RETURN_IF_ERROR(write_safetensors(path("best.safetensors"), *owed_best_));
    owed_best_.reset();
    return {};
}

Result<void> RunRecord::save_model(const TensorMap& weights) const {
    return write_safetensors(path("model.safetensors"), weights);
}

}  // namespace ecopipe
