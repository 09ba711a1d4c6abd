#include "fl_server/view/view_text.h"

#include <fmt/format.h>

#include "core/log.h"

namespace ecopipe {
namespace {

// A label's value in Prometheus' text format.
std::string label(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '\\' || c == '"') out += '\\';
        out += c == '\n' ? ' ' : c;
    }
    return out;
}

}  // namespace

OrderedJson view_json(const FederationView& view) {
    OrderedJson sites = OrderedJson::array();
    for (const SiteView& s : view.sites)
        sites.push_back({{"cluster", s.cluster},
                         {"connected", s.connected},
                         {"last_seen_s", s.last_seen_s},
                         {"group", s.group},
                         {"latency_s", s.latency_s},
                         {"samples", s.samples},
                         {"label_counts", s.label_counts},
                         {"task", s.task},
                         {"base_version", s.base_version},
                         {"staleness", s.staleness},
                         {"updates", s.updates},
                         {"rejections", s.rejections},
                         {"quarantined", s.quarantined},
                         {"degraded", s.degraded},
                         {"reason", s.reason}});
    OrderedJson recent = OrderedJson::array();
    for (const RoundView& r : view.recent)
        recent.push_back({{"round", r.round},
                          {"wall_s", r.wall_s},
                          {"group", r.group},
                          {"clusters", r.clusters},
                          {"samples", r.samples},
                          {"accuracy", r.accuracy},
                          {"loss", r.loss},
                          {"rejected", r.rejected}});
    return {{"strategy", view.strategy},         {"phase", view.phase},
            {"version", view.version},           {"rounds", view.rounds},
            {"clock_s", view.clock_s},           {"best_score", view.best_score},
            {"best_version", view.best_version}, {"uploads", view.uploads},
            {"bytes_in", view.bytes_in},         {"bytes_out", view.bytes_out},
            {"credit_bytes", view.credit_bytes}, {"credit_bytes_max", view.credit_bytes_max},
            {"free_bytes", view.free_bytes},     {"sites", std::move(sites)},
            {"recent", std::move(recent)}};
}

std::string status_text(const Json& view) {
    std::string text = fmt::format(
        "{}: {}, version {}{}, running for {:.0f} s\n", view.at("strategy").get<std::string>(),
        view.at("phase").get<std::string>(), view.at("version").get<std::uint64_t>(),
        view.at("rounds") == 0 ? std::string()
                               : fmt::format(" of {}", view.at("rounds").get<std::uint64_t>()),
        view.at("clock_s").get<double>());
    if (view.at("best_score") >= 0)
        text += fmt::format("best: version {}, accuracy {:.2f} %\n",
                            view.at("best_version").get<std::uint64_t>(),
                            100 * view.at("best_score").get<double>());
    text += fmt::format("{:<20} {:>6} {:>5} {:>9} {:>9} {:>6} {:>7} {:>8}  {}\n", "cluster", "seen",
                        "group", "latency", "staleness", "task", "updates", "rejected", "");
    for (const Json& s : view.at("sites")) {
        const bool connected = s.at("connected");
        std::string note = s.at("quarantined") ? "quarantine: " : connected ? "" : "away ";
        if (s.at("degraded")) note += "degraded ";
        text += fmt::format(
            "{:<20} {:>6.0f} {:>5} {:>9.1f} {:>9} {:>6} {:>7} {:>8}  {}{}\n",
            printable(s.at("cluster").get<std::string>()), s.at("last_seen_s").get<double>(),
            s.at("group").get<int>() < 0 ? "out" : std::to_string(s.at("group").get<int>()),
            s.at("latency_s").get<double>(), s.at("staleness").get<std::uint64_t>(),
            s.at("task").get<std::uint64_t>(), s.at("updates").get<std::uint64_t>(),
            s.at("rejections").get<std::uint64_t>(), note, s.at("reason").get<std::string>());
    }
    return text;
}

std::string prometheus_text(const FederationView& view) {
    std::string text;
    const auto metric = [&](const char* name, const char* kind, const char* help) {
        text += fmt::format("# HELP ecopipe_{} {}\n# TYPE ecopipe_{} {}\n", name, help, name, kind);
    };
    const auto value = [&](const char* name, const char* kind, const char* help, double number) {
        metric(name, kind, help);
        text += fmt::format("ecopipe_{} {}\n", name, number);
    };
    const auto number = [](std::uint64_t n) { return static_cast<double>(n); };
    value("version", "counter", "Versions of the global model so far.", number(view.version));
    value("running_seconds", "counter", "Running time of the federation.", view.clock_s);
    value("paused", "gauge", "1 while the operator has paused it.", view.phase == "paused" ? 1 : 0);
    value("uploads", "gauge", "Updates under way.", number(view.uploads));
    value("received_bytes_total", "counter", "Bytes of updates.", number(view.bytes_in));
    value("sent_bytes_total", "counter", "Bytes of models.", number(view.bytes_out));
    value("credit_bytes", "gauge", "Bytes under way in both directions.",
          number(view.credit_bytes));
    value("free_disk_bytes", "gauge", "Free bytes of the state's disk.", number(view.free_bytes));
    if (!view.recent.empty() && view.recent.back().accuracy >= 0)
        value("accuracy", "gauge", "Of the newest round that was tested.",
              view.recent.back().accuracy);
    const auto per_site = [&](const char* name, const char* kind, const char* help, auto of) {
        metric(name, kind, help);
        for (const SiteView& s : view.sites)
            text += fmt::format("ecopipe_{}{{cluster=\"{}\"}} {}\n", name, label(s.cluster),
                                static_cast<double>(of(s)));
    };
    per_site("site_connected", "gauge", "1 while the cluster is connected.",
             [](const SiteView& s) { return s.connected ? 1 : 0; });
    per_site("site_last_seen_seconds", "gauge", "Since the cluster was heard of.",
             [](const SiteView& s) { return s.last_seen_s; });
    per_site("site_group", "gauge", "The cluster's group, -1: none.",
             [](const SiteView& s) { return s.group; });
    per_site("site_latency_seconds", "gauge", "From task to update.",
             [](const SiteView& s) { return s.latency_s; });
    per_site("site_staleness", "gauge", "Versions that its last update was behind.",
             [](const SiteView& s) { return s.staleness; });
    per_site("site_updates_total", "counter", "Updates admitted.",
             [](const SiteView& s) { return s.updates; });
    per_site("site_rejections_total", "counter", "Updates rejected.",
             [](const SiteView& s) { return s.rejections; });
    per_site("site_quarantined", "gauge", "1 until the operator admits it again.",
             [](const SiteView& s) { return s.quarantined ? 1 : 0; });
    return text;
}

}  // namespace ecopipe
