#include "fl_server/strategies/sync_round.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"

namespace ecopipe {

ParameterRules RoundRules::rules(std::uint32_t min_clients) {
    return {
        integer_rule("clients_per_round", 0, 1000000, 0,
                     "clients that train at once, over all groups; 0: all"),
        number_rule("over_selection", 1, 10, 1,
                    "so many times more are asked; the first to answer count"),
        changeable(number_rule("deadline_s", 0.1, 1e9, 600, "a round ends then with what it has")),
        changeable(integer_rule("min_clients", 1, 1000000, min_clients,
                                "connected, before a round starts")),
        word_rule("late", {"drop", "use"}, "drop",
                  "what becomes of an update whose round is over")};
}

RoundRules RoundRules::from(const Parameters& parameters) {
    return {parameters.integer("clients_per_round"), parameters.number("over_selection"),
            parameters.number("deadline_s"), parameters.integer("min_clients"),
            parameters.word("late") == "use"};
}

std::size_t RoundRules::asked(std::size_t idle) const {
    if (clients == 0) return idle;
    const double wanted = std::ceil(static_cast<double>(clients) * over_selection - 1e-9);
    return std::min(idle, static_cast<std::size_t>(wanted));
}

void SyncRound::start(double now_s, std::uint64_t version, const std::vector<std::string>& asked,
                      std::size_t target, double deadline_s) {
    ECOPIPE_CHECK(!open_ && !asked.empty() && target > 0);
    open_ = true;
    ++number_;
    version_ = version;
    started_s_ = now_s;
    deadline_s_ = now_s + deadline_s;
    target_ = target;
    answered_ = 0;
    owed_ = {asked.begin(), asked.end()};
}

bool SyncRound::answer(const std::string& cluster, std::uint64_t base_version) {
    if (!open_ || base_version != version_ || owed_.erase(cluster) == 0) return false;
    ++answered_;
    return true;
}

bool SyncRound::over(double now_s) const {
    return open_ && (answered_ >= target_ || owed_.empty() || now_s >= deadline_s_);
}

std::vector<std::string> SyncRound::late(double now_s) const {
    if (!open_ || now_s < deadline_s_ || answered_ >= target_) return {};
    return {owed_.begin(), owed_.end()};
}

std::optional<double> SyncRound::deadline() const {
    return open_ ? std::optional(deadline_s_) : std::nullopt;
}

Json SyncRound::save() const {
    return {{"open", open_},       {"number", number_},
            {"version", version_}, {"started_s", started_s_},
            {"target", target_},   {"answered", answered_},
            {"owed", owed_}};
}

void SyncRound::restore(const Json& state, double deadline_s) {
    open_ = state.at("open").get<bool>();
    number_ = state.at("number").get<std::uint64_t>();
    version_ = state.at("version").get<std::uint64_t>();
    started_s_ = state.at("started_s").get<double>();
    deadline_s_ = started_s_ + deadline_s;
    target_ = state.at("target").get<std::size_t>();
    answered_ = state.at("answered").get<std::size_t>();
    owed_ = state.at("owed").get<std::set<std::string>>();
}

}  // namespace ecopipe
