#include "fl_server/view/federation_page.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/command_line.h"
#include "core/log.h"

namespace ecopipe {
namespace {

std::string group_name(int group) {
    return group < 0 ? "drop-out" : fmt::format("group {}", group);
}

std::string state_of(const SiteView& site) {
    if (!site.connected) return "gone";
    if (site.quarantined) return "quarantined";
    return site.task != 0 ? "training" : "connected";
}

// The page's word for the federation's phase.
std::string page_state(const std::string& phase) {
    if (phase == "finished") return "ended";
    if (phase == "running" || phase == "paused") return phase;
    return phase == "finishing" ? "running" : "paused";
}

OrderedJson curve(const std::string& name, const std::string& unit, const BoundedSeries& series) {
    OrderedJson points = OrderedJson::array();
    for (const BoundedSeries::Bucket& bucket : series.buckets()) {
        OrderedJson point{bucket.last_x, bucket.mean()};
        if (bucket.count > 1) {
            point.push_back(bucket.low);
            point.push_back(bucket.high);
        }
        points.push_back(std::move(point));
    }
    return {{"name", name},
            {"x", "round"},
            {"unit", unit},
            {"series", {{{"name", "global model"}, {"points", std::move(points)}}}}};
}

OrderedJson sites_of(const FederationView& view) {
    OrderedJson out = OrderedJson::array();
    for (const SiteView& site : view.sites) {
        OrderedJson row{{"name", printable(site.cluster)}, {"state", state_of(site)},
                        {"group", group_name(site.group)}, {"samples", site.samples},
                        {"updates", site.updates},         {"rejected", site.rejections}};
        if (site.latency_s > 0) row["latency_s"] = site.latency_s;
        out.push_back(std::move(row));
    }
    return out;
}

OrderedJson groups_of(const FederationView& view) {
    struct Group {
        std::vector<std::string> sites;
        double latency_s = 0;  // the slowest's
    };
    std::map<int, Group> groups;
    for (const SiteView& site : view.sites) {
        Group& group = groups[site.group];
        group.sites.push_back(printable(site.cluster));
        group.latency_s = std::max(group.latency_s, site.latency_s);
    }
    OrderedJson out = OrderedJson::array();
    for (const auto& [number, group] : groups) {
        OrderedJson row{{"name", group_name(number)}, {"sites", group.sites}};
        if (group.latency_s > 0) row["latency_s"] = group.latency_s;
        out.push_back(std::move(row));
    }
    return out;
}

OrderedJson rounds_of(const std::deque<RoundView>& rounds) {
    OrderedJson out = OrderedJson::array();
    for (const RoundView& round : rounds) {
        OrderedJson row{{"round", round.round},
                        {"group", group_name(static_cast<int>(round.group))},
                        {"clusters", round.clusters},
                        {"samples", round.samples},
                        {"rejected", round.rejected}};
        if (round.accuracy >= 0) row["accuracy"] = round.accuracy;
        if (round.loss >= 0) row["loss"] = round.loss;
        out.push_back(std::move(row));
    }
    return out;
}

}  // namespace

FederationPage::FederationPage(std::string title, std::int64_t now_unix_ms)
    : title_(std::move(title)), started_unix_ms_(now_unix_ms) {}

void FederationPage::add_event(std::int64_t now_unix_ms, const std::string& kind,
                               std::string text) {
    events_.push_back(
        {.unix_ms = now_unix_ms, .kind = kind, .round = newest_round_, .text = std::move(text)});
    if (events_.size() > kEventsMax) events_.pop_front();
}

void FederationPage::compare_site(const SiteView& before, const SiteView& site,
                                  std::int64_t now_unix_ms) {
    const std::string name = printable(site.cluster);
    if (site.connected != before.connected)
        add_event(now_unix_ms, site.connected ? "join" : "lost",
                  name + (site.connected ? " joined" : " is gone"));
    if (site.group != before.group && seen_)
        add_event(now_unix_ms, "moved",
                  fmt::format("{}: from {} to {}", name, group_name(before.group),
                              group_name(site.group)));
    if (site.quarantined && !before.quarantined)
        add_event(now_unix_ms, "rejected", name + " is in quarantine");
    if (site.rejections > before.rejections) {
        rejections_.push_back(
            {.unix_ms = now_unix_ms, .site = name, .reason = printable(site.reason)});
        if (rejections_.size() > kRejectionsMax) rejections_.pop_front();
    }
}

void FederationPage::take_rounds(const FederationView& view, std::int64_t now_unix_ms) {
    for (const RoundView& round : view.recent) {
        if (round.round <= newest_round_) continue;
        newest_round_ = round.round;
        round_unix_ms_ = now_unix_ms;
        if (round.accuracy >= 0) accuracy_.add(static_cast<double>(round.round), round.accuracy);
        if (round.loss >= 0) loss_.add(static_cast<double>(round.round), round.loss);
        rounds_.push_back(round);
        if (rounds_.size() > kRoundsMax) rounds_.pop_front();
        add_event(now_unix_ms, "round",
                  fmt::format("round {}: {} site{}, {} samples{}", round.round, round.clusters,
                              round.clusters == 1 ? "" : "s", round.samples,
                              round.rejected > 0 ? fmt::format(", {} rejected", round.rejected)
                                                 : std::string()));
    }
}

void FederationPage::update(const FederationView& view, std::int64_t now_unix_ms) {
    const MutexLock lock(mutex_);
    std::map<std::string, const SiteView*> before;
    for (const SiteView& site : now_.sites) before[site.cluster] = &site;
    for (const SiteView& site : view.sites) {
        const auto known = before.find(site.cluster);
        SiteView fresh;
        fresh.group = site.group;
        compare_site(known == before.end() ? fresh : *known->second, site, now_unix_ms);
    }
    take_rounds(view, now_unix_ms);
    if (view.phase != now_.phase)
        add_event(now_unix_ms, "phase", "the federation is " + view.phase);
    now_ = view;
    seen_ = true;
    ++revision_;
}

OrderedJson FederationPage::document(std::int64_t now_unix_ms) const {
    const MutexLock lock(mutex_);
    OrderedJson out{
        {"schema", "ecopipe.view/1"},
        {"kind", "federation"},
        {"version", kVersion},
        {"title", title_},
        {"state", seen_ ? page_state(now_.phase) : "starting"},
        {"state_text", now_.phase == "running" || now_.phase == "finished" ? "" : now_.phase},
        {"started_unix_ms", started_unix_ms_},
        {"updated_unix_ms", round_unix_ms_},
        {"now_unix_ms", now_unix_ms},
        {"strategy", now_.strategy},
        {"round", now_.version},
        {"rounds_wanted", now_.rounds}};
    OrderedJson evaluation = OrderedJson::object();
    if (!rounds_.empty() && rounds_.back().accuracy >= 0)
        evaluation["accuracy"] = rounds_.back().accuracy;
    if (!rounds_.empty() && rounds_.back().loss >= 0) evaluation["loss"] = rounds_.back().loss;
    if (!evaluation.empty()) out["evaluation"] = std::move(evaluation);
    out["groups"] = groups_of(now_);
    out["sites"] = sites_of(now_);
    out["rounds"] = rounds_of(rounds_);
    out["rejections"] = OrderedJson::array();
    for (const Rejection& rejection : rejections_)
        out["rejections"].push_back({{"unix_ms", rejection.unix_ms},
                                     {"site", rejection.site},
                                     {"reason", rejection.reason}});
    out["events"] = OrderedJson::array();
    for (const Event& event : events_)
        out["events"].push_back({{"unix_ms", event.unix_ms},
                                 {"kind", event.kind},
                                 {"step", event.round},
                                 {"text", event.text}});
    out["curves"] = OrderedJson::array();
    if (!accuracy_.buckets().empty())
        out["curves"].push_back(curve("accuracy", "share", accuracy_));
    if (!loss_.buckets().empty()) out["curves"].push_back(curve("loss", "", loss_));
    return out;
}

}  // namespace ecopipe
