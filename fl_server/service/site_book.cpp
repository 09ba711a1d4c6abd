#include "fl_server/service/site_book.h"

#include <algorithm>
#include <utility>

#include "core/check.h"
#include "fl_server/numbers/samples_cap.h"
#include "fl_server/strategies/roster.h"

namespace ecopipe {

Site& SiteBook::site(const std::string& cluster) {
    Site& site = sites_[cluster];
    site.facts.cluster = site.record.cluster = cluster;
    return site;
}

const Site& SiteBook::at(const std::string& cluster) { return site(cluster); }

std::size_t SiteBook::connected() const {
    return static_cast<std::size_t>(std::count_if(
        sites_.begin(), sites_.end(), [](const auto& entry) { return entry.second.connected; }));
}

bool SiteBook::anyone_joined() const {
    return std::any_of(sites_.begin(), sites_.end(),
                       [](const auto& entry) { return entry.second.joined; });
}

std::vector<std::string> SiteBook::absent() const {
    std::vector<std::string> names;
    for (const auto& [name, s] : sites_)
        if (s.joined && !s.connected) names.push_back(name);
    return names;
}

// ---- coming and going

std::optional<StrategyEvent> SiteBook::hello(const ClientFacts& facts, bool tests) {
    Site& s = site(facts.cluster);
    s.connected = true;
    s.tests = tests;
    if (s.record.quarantined) {
        s.facts.samples = facts.samples;  // as it joins with, once it is admitted again
        s.facts.label_counts = facts.label_counts;
        return std::nullopt;
    }
    ClientFacts known = facts;
    known.latency_s = s.facts.latency_s;
    if (!s.joined) return strategy_event::Joined{std::move(known)};
    if (facts.samples == s.facts.samples && facts.label_counts == s.facts.label_counts)
        return std::nullopt;
    return strategy_event::Changed{std::move(known)};
}

void SiteBook::leave(const std::string& cluster, double now_s) {
    Site& s = site(cluster);
    s.connected = false;
    s.away_since_s = last_left_s_ = now_s;
}

std::optional<StrategyEvent> SiteBook::status(const std::string& cluster, double latency_s,
                                              bool degraded) {
    Site& s = site(cluster);
    s.degraded = degraded;
    if (!s.joined) return std::nullopt;
    ClientFacts facts = s.facts;
    facts.latency_s = latency_s;
    return strategy_event::Changed{std::move(facts)};
}

void SiteBook::start_absences(double now_s) {
    for (auto& [name, s] : sites_) s.away_since_s = now_s;
    last_left_s_ = now_s;
}

std::vector<std::string> SiteBook::away_for(double now_s, double absence_s) const {
    std::map<std::uint64_t, std::string> by_task;
    for (const auto& [name, s] : sites_)
        if (s.task != 0 && !s.connected && !s.joined && now_s - s.away_since_s > absence_s)
            by_task[s.task] = name;
    std::vector<std::string> names;
    for (auto& [task, name] : by_task) names.push_back(std::move(name));
    return names;
}

// ---- tasks

std::uint64_t SiteBook::end_task(const std::string& cluster) {
    return std::exchange(site(cluster).task, 0);
}

std::uint64_t SiteBook::note(const StrategyEvent& event) {
    using namespace strategy_event;
    if (const auto* joined = std::get_if<Joined>(&event)) {
        Site& s = site(joined->facts.cluster);
        s.facts = joined->facts;
        s.joined = true;
    } else if (const auto* changed = std::get_if<Changed>(&event)) {
        site(changed->facts.cluster).facts = changed->facts;
    } else if (const auto* gone = std::get_if<Left>(&event)) {
        site(gone->cluster).joined = false;
    } else if (const auto* admitted = std::get_if<Admitted>(&event)) {
        Site& s = site(admitted->facts.cluster);
        s.facts.latency_s = admitted->facts.latency_s;  // its samples may be cut
        s.staleness = admitted->staleness;
        ++s.updates;
        return end_task(admitted->facts.cluster);
    } else if (const auto* failed = std::get_if<Failed>(&event)) {
        return end_task(failed->cluster);
    }
    return 0;
}

void SiteBook::assign(const std::string& cluster, std::uint64_t task, std::uint32_t group) {
    Site& s = site(cluster);
    ECOPIPE_CHECK(s.task == 0);
    s.task = task;
    if (s.group >= 0) s.group = static_cast<int>(group);
}

void SiteBook::move(const std::string& cluster, int group) { site(cluster).group = group; }

bool SiteBook::is_news(const std::string& cluster, std::uint64_t unknown_task) {
    return std::exchange(site(cluster).unknown_task, unknown_task) != unknown_task;
}

// ---- what its updates are worth

bool SiteBook::count_rejection(const std::string& cluster, const std::string& reason,
                               std::uint64_t quarantine_after) {
    SiteRow& record = site(cluster).record;
    ++record.rejections;
    ++record.in_a_row;
    record.reason = reason;
    if (quarantine_after == 0 || record.in_a_row < quarantine_after || record.quarantined)
        return false;
    record.quarantined = true;
    return true;
}

bool SiteBook::end_row(const std::string& cluster) {
    return std::exchange(site(cluster).record.in_a_row, 0) > 0;
}

bool SiteBook::admit(const std::string& cluster) {
    const auto found = sites_.find(cluster);  // an operator may name anybody
    if (found == sites_.end() || !found->second.record.quarantined) return false;
    found->second.record.quarantined = false;
    found->second.record.in_a_row = 0;
    return true;
}

void SiteBook::set_record(const SiteRow& row) { site(row.cluster).record = row; }

std::uint64_t SiteBook::samples_most(double weight_max) const {
    std::vector<std::uint64_t> told;
    for (const auto& [name, s] : sites_)
        if (s.joined) told.push_back(s.facts.samples);
    return samples_cap(std::move(told), weight_max);
}

// ---- what they find when they test

bool SiteBook::take_tests(const std::vector<UpdateRow>& updates) {
    bool news = false;
    for (const UpdateRow& update : updates) {
        if (update.eval_samples == 0) continue;
        ClientTest& tested = site(update.cluster).tested;
        if (tested.samples > 0 && tested.version > update.base_version) continue;
        tested = {.version = update.base_version,
                  .samples = update.eval_samples,
                  .accuracy = update.eval_accuracy};
        news = true;
    }
    return news;
}

std::vector<ClientTest> SiteBook::newest_tests() const {
    std::vector<ClientTest> tests;
    for (const auto& [name, s] : sites_)
        if (s.joined && (s.tests || s.tested.samples > 0)) tests.push_back(s.tested);
    return tests;
}

bool SiteBook::take_untested() {
    const bool tested = std::any_of(sites_.begin(), sites_.end(),
                                    [](const auto& entry) { return entry.second.tests; });
    return !tested && !std::exchange(told_untested_, true);
}

// ---- what is seen and kept

std::vector<SiteView> SiteBook::view() const {
    std::vector<SiteView> views;
    for (const auto& [name, s] : sites_)
        views.push_back({.cluster = name,
                         .connected = s.connected,
                         .group = s.group,
                         .latency_s = s.facts.latency_s,
                         .samples = s.facts.samples,
                         .label_counts = s.facts.label_counts,
                         .task = s.task,
                         .staleness = s.staleness,
                         .updates = s.updates,
                         .rejections = s.record.rejections,
                         .quarantined = s.record.quarantined,
                         .degraded = s.degraded,
                         .reason = s.record.reason});
    return views;
}

void SiteBook::save(Json& snapshot) const {
    Json& sites = snapshot["sites"] = Json::array();
    for (const auto& [name, s] : sites_)
        sites.push_back({{"facts", facts_json(s.facts)},
                         {"joined", s.joined},
                         {"task", s.task},
                         {"group", s.group},
                         {"staleness", s.staleness},
                         {"updates", s.updates},
                         {"degraded", s.degraded},
                         {"tests", s.tests},
                         {"tested",
                          {{"version", s.tested.version},
                           {"samples", s.tested.samples},
                           {"accuracy", s.tested.accuracy}}}});
}

void SiteBook::restore(const Json& snapshot) {
    for (const Json& entry : snapshot.at("sites")) {
        const ClientFacts facts = facts_from(entry.at("facts"));
        Site& s = site(facts.cluster);
        s.facts = facts;
        s.joined = entry.at("joined");
        s.task = entry.at("task");
        s.group = entry.at("group");
        s.staleness = entry.at("staleness");
        s.updates = entry.at("updates");
        s.degraded = entry.at("degraded");
        s.tests = entry.at("tests");
        const Json& tested = entry.at("tested");
        s.tested = {.version = tested.at("version"),
                    .samples = tested.at("samples"),
                    .accuracy = tested.at("accuracy")};
    }
}

}  // namespace ecopipe
