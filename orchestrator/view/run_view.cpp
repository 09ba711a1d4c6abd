#include "orchestrator/view/run_view.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/log.h"
#include "core/units.h"

namespace ecopipe {
namespace {

constexpr double kRateWeight = 0.2;  // of the newest step in a device's Mbit/s
constexpr std::size_t kDevicesMax = 256;

double number(const OrderedJson& object, const char* key, double otherwise = 0) {
    const auto found = object.find(key);
    return found != object.end() && found->is_number() ? found->get<double>() : otherwise;
}

std::string text(const OrderedJson& object, const char* key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() ? printable(found->get<std::string>()) : "";
}

std::pair<std::string, std::string> pair_of(const std::string& a, const std::string& b) {
    return {std::min(a, b), std::max(a, b)};
}

std::string layers_of(const std::vector<StageView>& stages, const std::string& device) {
    std::string out;
    for (const StageView& stage : stages) {
        if (stage.device != device) continue;
        out += fmt::format("{}{}-{}", out.empty() ? "" : ", ", stage.first_layer, stage.last_layer);
    }
    return out;
}

}  // namespace

const char* run_state_text(RunState state) {
    switch (state) {
        case RunState::kStarting:
            return "starting";
        case RunState::kRunning:
            return "running";
        case RunState::kRecovering:
            return "recovering";
        case RunState::kEnded:
            return "ended";
        case RunState::kFailed:
            return "failed";
    }
    return "unknown";
}

RunView::RunView(std::function<std::int64_t()> unix_ms) : unix_ms_(std::move(unix_ms)) {
    now_.started_unix_ms = unix_ms_();
}

void RunView::changed() { ++revision_; }

void RunView::add_event(const std::string& kind, std::string what) {
    now_.events.push_back({unix_ms_(), kind, now_.step, std::move(what)});
    if (now_.events.size() > kEventsMax) now_.events.pop_front();
}

DeviceView& RunView::device(const std::string& name) {
    for (DeviceView& view : now_.devices)
        if (view.name == name) return view;
    if (now_.devices.size() >= kDevicesMax) return now_.devices.back();  // a damaged file
    now_.devices.emplace_back();
    now_.devices.back().name = printable(name);
    return now_.devices.back();
}

void RunView::begin(const std::string& title) {
    const MutexLock lock(mutex_);
    now_.title = title;
    changed();
}

void RunView::end(RunState state, const std::string& what) {
    const MutexLock lock(mutex_);
    now_.state = state;
    now_.state_text = what;
    add_event(run_state_text(state), what);
    changed();
}

void RunView::expect_device(const std::string& name, double memory_mib) {
    const MutexLock lock(mutex_);
    device(name).budget_mib = memory_mib;
    changed();
}

void RunView::set_link(const std::string& a, const std::string& b, double mbps, double latency_ms) {
    const MutexLock lock(mutex_);
    links_[pair_of(a, b)] = {mbps, latency_ms};
}

void RunView::progress(std::uint64_t step, std::uint64_t steps, double epoch,
                       double samples_per_s) {
    const MutexLock lock(mutex_);
    now_.step = step;
    now_.steps = steps;
    now_.epoch = epoch;
    now_.samples_per_s = samples_per_s;
    changed();
}

void RunView::event(const std::string& kind, const std::string& what) {
    const MutexLock lock(mutex_);
    add_event(kind, what);
    changed();
}

void RunView::device_joined(const std::string& name, double memory_mib) {
    const MutexLock lock(mutex_);
    DeviceView& view = device(name);
    view.state = view.layers.empty() ? "joined" : "working";
    view.note.clear();
    if (view.budget_mib <= 0) view.budget_mib = memory_mib;
    add_event("join", fmt::format("{} joined", name));
    changed();
}

void RunView::device_gone(const std::string& name, const std::string& how) {
    const MutexLock lock(mutex_);
    DeviceView& view = device(name);
    view.state = "lost";
    view.note = how;
    view.busy = -1;
    view.sent_mbps = 0;
    add_event("lost", fmt::format("{} is gone: {}", name, how));
    changed();
}

void RunView::device_leaves(const std::string& name) {
    const MutexLock lock(mutex_);
    device(name).state = "leaving";
    add_event("leaving", fmt::format("{} asks to leave", name));
    changed();
}

void RunView::failed(const std::string& cause) {
    const MutexLock lock(mutex_);
    now_.state = RunState::kRecovering;
    now_.state_text = cause;
    add_event("failure", fmt::format("{}; all go back to a common state", cause));
    changed();
}

void RunView::set_stages(const std::vector<StageView>& stages) {
    now_.stages = stages;
    for (std::size_t i = 0; i < now_.stages.size(); ++i) {
        StageView& stage = now_.stages[i];
        // The first that holds the next layers: twins follow one another.
        const auto next = std::find_if(
            now_.stages.begin() + static_cast<std::ptrdiff_t>(i), now_.stages.end(),
            [&](const StageView& other) { return other.first_layer > stage.last_layer; });
        if (next == now_.stages.end() || next->device == stage.device) continue;
        const auto link = links_.find(pair_of(stage.device, next->device));
        if (link != links_.end()) std::tie(stage.mbps, stage.latency_ms) = link->second;
    }
    for (const StageView& stage : now_.stages) static_cast<void>(device(stage.device));
    for (DeviceView& view : now_.devices) {
        view.layers = layers_of(now_.stages, view.name);
        const bool present = view.state != "lost" && view.state != "expected";
        if (!view.layers.empty()) {
            if (view.state != "leaving") view.state = "working";
        } else if (present) {
            view.state = "spare";
            view.busy = -1;
            view.sent_mbps = 0;
        }
    }
}

void RunView::plan_in_force(const Plan& plan, const std::string& cause) {
    const MutexLock lock(mutex_);
    std::vector<StageView> stages;
    std::vector<std::string> parts;
    for (const StagePlan& stage : plan.stages)
        for (const StageHolder& holder : holders_of(stage, plan.sum_blocks)) {
            stages.push_back(
                {holder.device, stage.first_layer, stage.last_layer, holder.in_flight});
            parts.push_back(
                fmt::format("{} {}-{}", holder.device, stage.first_layer, stage.last_layer));
        }
    set_stages(stages);
    now_.state = RunState::kRunning;
    now_.state_text.clear();
    std::string list;
    for (const std::string& part : parts) list += (list.empty() ? "" : ", ") + part;
    add_event("plan", fmt::format("{}: {}{}", plan.schedule, list,
                                  cause.empty() ? "" : " (" + cause + ")"));
    changed();
}

void RunView::add_point(const std::string& curve, const std::string& series, double x, double y) {
    std::size_t known = 0;
    for (const auto& [name, all] : now_.curves) known += all.size();
    const auto found = now_.curves.find(curve);
    const bool fresh = found == now_.curves.end() || !found->second.contains(series);
    if (fresh && known >= kSeriesMax) return;
    now_.curves[curve][series].add(x, y);
}

void RunView::take_step(const OrderedJson& line) {
    now_.step = std::max(now_.step, static_cast<std::uint64_t>(number(line, "step")));
    now_.loss = number(line, "loss");
    now_.step_ms = number(line, "step_ms");
    now_.samples_per_s = number(line, "samples_per_s");
    add_point("loss", "train", number(line, "step"), now_.loss);
    const auto stages = line.find("stages");
    if (stages == line.end() || !stages->is_array()) return;
    for (const OrderedJson& report : *stages) {
        if (!report.is_object()) continue;
        const auto name = report.find("device");
        if (name == report.end() || !name->is_string()) continue;
        DeviceView& view = device(name->get<std::string>());
        if (view.state == "expected") view.state = "working";  // read from a file
        const double busy_ms = number(report, "busy_ms");
        const double all_ms = busy_ms + number(report, "wait_ms");
        view.busy = all_ms > 0 ? busy_ms / all_ms : 1;
        view.used_mib = std::max(view.used_mib, number(report, "peak_bytes") / kMib);
        const double mbps =
            now_.step_ms > 0 ? number(report, "sent_bytes") * 8 / (now_.step_ms * 1000) : 0;
        view.sent_mbps =
            view.sent_mbps <= 0 ? mbps : view.sent_mbps + kRateWeight * (mbps - view.sent_mbps);
    }
}

void RunView::take_evaluation(const OrderedJson& line) {
    const std::string split = text(line, "split");
    now_.evaluation.clear();
    now_.evaluated_split = split;
    for (const auto& [key, value] : line.items()) {
        if (key == "epoch" || key == "step" || !value.is_number()) continue;
        now_.evaluation[printable(key)] = value.get<double>();
        add_point(printable(key), split, static_cast<double>(now_.step), value.get<double>());
    }
    const auto accuracy = now_.evaluation.find("accuracy");
    const std::string second = accuracy != now_.evaluation.end()
                                   ? fmt::format(", accuracy {:.2f} %", 100 * accuracy->second)
                                   : "";
    add_event("evaluation", fmt::format("epoch {:.2f}: {} loss {:.4f}{}", number(line, "epoch"),
                                        split, number(line, "loss"), second));
}

void RunView::take_events(const OrderedJson& events) {
    if (!events.is_array()) return;
    for (const OrderedJson& entry : events) {
        if (!entry.is_object()) continue;
        const std::string kind = text(entry, "kind");
        std::vector<StageView> stages;
        if (const auto plan = entry.find("plan"); plan != entry.end() && plan->is_array())
            for (const OrderedJson& stage : *plan)
                if (stage.is_object())
                    stages.push_back({text(stage, "device"),
                                      static_cast<int>(number(stage, "first_layer")),
                                      static_cast<int>(number(stage, "last_layer"))});
        // Live, the session told it already, with more in it.
        if (now_.stages.empty() && !stages.empty()) set_stages(stages);
        if (!entry.contains("pause_ms")) {
            add_event(kind, text(entry, "cause"));
            continue;
        }
        const double replayed = number(entry, "replayed_from_step", -1);
        add_event(kind == "lost" ? "recovered" : kind,
                  fmt::format("{}: {:.0f} ms pause, {:.1f} MiB moved{}", text(entry, "cause"),
                              number(entry, "pause_ms"), number(entry, "bytes_moved") / kMib,
                              replayed >= 0 ? fmt::format(", on from step {:.0f}", replayed) : ""));
    }
}

void RunView::metrics_line(const OrderedJson& line, bool live) {
    if (!line.is_object()) return;
    const MutexLock lock(mutex_);
    if (line.contains("round")) {
        add_event("round", fmt::format("round {:.0f}: loss {:.4f}, {:.1f} s", number(line, "round"),
                                       number(line, "loss"), number(line, "seconds")));
        add_point("loss by round", "train", number(line, "round"), number(line, "loss"));
    } else if (line.contains("epoch")) {
        take_evaluation(line);
    } else if (line.contains("step")) {
        take_step(line);
        if (live) now_.step_unix_ms = unix_ms_();
        if (live && now_.state == RunState::kStarting) now_.state = RunState::kRunning;
        if (const auto events = line.find("event"); events != line.end()) take_events(*events);
    }
    changed();
}

void RunView::trace(std::uint64_t step, const std::vector<DeviceReport>& devices) {
    TracedStepView traced;
    traced.step = step;
    std::int64_t first = INT64_MAX;
    for (const DeviceReport& report : devices)
        for (const ActionTime& action : report.actions)
            first = std::min(first, action.start_ns + report.clock_offset_ns);
    std::size_t count = 0;
    for (const DeviceReport& report : devices) {
        auto& lane = traced.lanes.emplace_back(report.device, std::vector<TracedAction>());
        for (const ActionTime& action : report.actions) {
            const auto at = [&](std::int64_t ns) {
                return static_cast<double>(ns + report.clock_offset_ns - first) / 1e6;
            };
            lane.second.push_back({action.kind, action.micro_batch, action.slice,
                                   at(action.start_ns), at(action.end_ns)});
            traced.length_ms = std::max(traced.length_ms, at(action.end_ns));
            ++count;
        }
    }
    if (count == 0) return;
    const MutexLock lock(mutex_);
    now_.timeline.push_back(std::move(traced));
    const auto actions = [&]() ECOPIPE_REQUIRES(mutex_) {
        std::size_t sum = 0;
        for (const TracedStepView& kept : now_.timeline)
            for (const auto& [name, lane] : kept.lanes) sum += lane.size();
        return sum;
    };
    while (now_.timeline.size() > 1 &&
           (now_.timeline.size() > kTimelineStepsMax || actions() > kTimelineActionsMax))
        now_.timeline.pop_front();
    changed();
}

RunSnapshot RunView::snapshot() const {
    const MutexLock lock(mutex_);
    RunSnapshot copy = now_;
    copy.revision = revision_;
    return copy;
}

}  // namespace ecopipe
