#include "orchestrator/view/view_document.h"

#include <cmath>

#include "core/command_line.h"
#include "core/log.h"

namespace ecopipe {
namespace {

// Enough digits for a screen, so that a thousand points stay small.
double rounded(double value) {
    if (value == 0 || !std::isfinite(value)) return 0;
    const double scale = std::pow(10.0, 5 - std::floor(std::log10(std::fabs(value))));
    return std::round(value * scale) / scale;
}

OrderedJson devices_of(const RunSnapshot& run) {
    OrderedJson out = OrderedJson::array();
    for (const DeviceView& device : run.devices) {
        OrderedJson row{{"name", device.name},
                        {"state", device.state},
                        {"layers", device.layers},
                        {"used_mib", rounded(device.used_mib)},
                        {"budget_mib", rounded(device.budget_mib)},
                        {"sent_mbps", rounded(device.sent_mbps)}};
        if (device.busy >= 0) row["busy"] = rounded(device.busy);
        if (!device.note.empty()) row["note"] = device.note;
        out.push_back(std::move(row));
    }
    return out;
}

OrderedJson stages_of(const RunSnapshot& run) {
    OrderedJson out = OrderedJson::array();
    for (const StageView& stage : run.stages) {
        OrderedJson entry{{"device", stage.device},
                          {"first_layer", stage.first_layer},
                          {"last_layer", stage.last_layer},
                          {"in_flight", stage.in_flight}};
        if (stage.mbps > 0) {
            entry["mbps"] = rounded(stage.mbps);
            entry["latency_ms"] = rounded(stage.latency_ms);
        }
        out.push_back(std::move(entry));
    }
    return out;
}

OrderedJson events_of(const RunSnapshot& run) {
    OrderedJson out = OrderedJson::array();
    for (const RunEvent& event : run.events)
        out.push_back({{"unix_ms", event.unix_ms},
                       {"kind", event.kind},
                       {"step", event.step},
                       {"text", event.text}});
    return out;
}

OrderedJson curves_of(const RunSnapshot& run) {
    OrderedJson out = OrderedJson::array();
    for (const auto& [name, all] : run.curves) {
        OrderedJson series = OrderedJson::array();
        for (const auto& [label, points] : all) {
            OrderedJson list = OrderedJson::array();
            for (const BoundedSeries::Bucket& bucket : points.buckets()) {
                OrderedJson point{rounded(bucket.last_x), rounded(bucket.mean())};
                if (bucket.count > 1) {
                    point.push_back(rounded(bucket.low));
                    point.push_back(rounded(bucket.high));
                }
                list.push_back(std::move(point));
            }
            series.push_back({{"name", label}, {"points", std::move(list)}});
        }
        out.push_back({{"name", name},
                       {"x", name == "loss by round" ? "round" : "step"},
                       {"unit", name == "accuracy" ? "share" : ""},
                       {"series", std::move(series)}});
    }
    return out;
}

OrderedJson timeline_of(const RunSnapshot& run) {
    OrderedJson out = OrderedJson::array();
    for (const TracedStepView& traced : run.timeline) {
        OrderedJson lanes = OrderedJson::array();
        for (const auto& [device, spans] : traced.lanes) {
            OrderedJson list = OrderedJson::array();
            for (const TracedAction& span : spans)
                list.push_back({std::string(1, span.kind), span.micro_batch, span.slice,
                                rounded(span.start_ms), rounded(span.end_ms)});
            lanes.push_back({{"device", device}, {"actions", std::move(list)}});
        }
        out.push_back({{"step", traced.step},
                       {"ms", rounded(traced.length_ms)},
                       {"lanes", std::move(lanes)}});
    }
    return out;
}

}  // namespace

OrderedJson view_summary(const RunSnapshot& run, std::int64_t now_unix_ms) {
    OrderedJson out{{"schema", "ecopipe.view/1"},
                    {"kind", "training"},
                    {"version", kVersion},
                    {"title", run.title},
                    {"state", run_state_text(run.state)},
                    {"state_text", run.state_text},
                    {"started_unix_ms", run.started_unix_ms},
                    {"updated_unix_ms", run.step_unix_ms},
                    {"now_unix_ms", now_unix_ms},
                    {"step", run.step},
                    {"steps", run.steps},
                    {"epoch", rounded(run.epoch)},
                    {"loss", rounded(run.loss)},
                    {"samples_per_s", rounded(run.samples_per_s)},
                    {"step_ms", rounded(run.step_ms)}};
    OrderedJson evaluation{{"split", run.evaluated_split}};
    for (const auto& [name, value] : run.evaluation) evaluation[name] = rounded(value);
    if (!run.evaluation.empty()) out["evaluation"] = std::move(evaluation);
    out["devices"] = devices_of(run);
    out["stages"] = stages_of(run);
    out["events"] = events_of(run);
    return out;
}

OrderedJson view_document(const RunSnapshot& run, std::int64_t now_unix_ms) {
    OrderedJson out = view_summary(run, now_unix_ms);
    out["curves"] = curves_of(run);
    out["timeline"] = timeline_of(run);
    return out;
}

RunSnapshot read_summary(const OrderedJson& summary) {
    RunSnapshot run;
    const auto number = [](const OrderedJson& object, const char* key, double otherwise = 0) {
        const auto found = object.find(key);
        return found != object.end() && found->is_number() ? found->get<double>() : otherwise;
    };
    const auto text = [](const OrderedJson& object, const char* key) {
        const auto found = object.find(key);
        return found != object.end() && found->is_string() ? printable(found->get<std::string>())
                                                           : std::string();
    };
    const auto list = [&](const char* key) {
        const auto found = summary.find(key);
        return found != summary.end() && found->is_array() ? *found : OrderedJson::array();
    };
    const auto whole = [&](const OrderedJson& object, const char* key) {
        return static_cast<std::uint64_t>(std::clamp(number(object, key), 0.0, 1e15));
    };
    run.title = text(summary, "title");
    run.state_text = text(summary, "state_text");
    for (const RunState state : {RunState::kStarting, RunState::kRunning, RunState::kRecovering,
                                 RunState::kEnded, RunState::kFailed})
        if (text(summary, "state") == run_state_text(state)) run.state = state;
    run.started_unix_ms = static_cast<std::int64_t>(whole(summary, "started_unix_ms"));
    run.step_unix_ms = static_cast<std::int64_t>(whole(summary, "updated_unix_ms"));
    run.step = whole(summary, "step");
    run.steps = whole(summary, "steps");
    run.epoch = number(summary, "epoch");
    run.loss = number(summary, "loss");
    run.samples_per_s = number(summary, "samples_per_s");
    run.step_ms = number(summary, "step_ms");
    if (const auto found = summary.find("evaluation");
        found != summary.end() && found->is_object()) {
        run.evaluated_split = text(*found, "split");
        for (const auto& [key, value] : found->items())
            if (value.is_number()) run.evaluation[key] = value.get<double>();
    }
    for (const OrderedJson& row : list("devices")) {
        if (!row.is_object()) continue;
        DeviceView device;
        device.name = text(row, "name");
        device.state = text(row, "state");
        device.note = text(row, "note");
        device.layers = text(row, "layers");
        device.busy = number(row, "busy", -1);
        device.used_mib = number(row, "used_mib");
        device.budget_mib = number(row, "budget_mib");
        device.sent_mbps = number(row, "sent_mbps");
        run.devices.push_back(std::move(device));
    }
    for (const OrderedJson& row : list("events"))
        if (row.is_object())
            run.events.push_back({static_cast<std::int64_t>(whole(row, "unix_ms")),
                                  text(row, "kind"), whole(row, "step"), text(row, "text")});
    return run;
}

}  // namespace ecopipe
