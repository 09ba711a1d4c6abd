#include "fl_server/strategies/serial_strategy.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/check.h"
#include "core/log.h"

namespace ecopipe {

StrategyDecisions SerialStrategy::on(double now_s, const StrategyEvent& event) {
    now_s_ = std::max(now_s_, now_s);
    decisions_.clear();
    std::visit([this](const auto& one) { take(one); }, event);
    if (!committing_) advance();
    const auto deadline = next_deadline();
    if (deadline && (!asked_wake_ || *deadline < *asked_wake_)) {
        asked_wake_ = deadline;
        decisions_.emplace_back(strategy_decision::Wake{*deadline});
    }
    return std::exchange(decisions_, {});
}

void SerialStrategy::take(const strategy_event::Joined& event) {
    const bool new_here = roster_.find(event.facts.cluster) == nullptr;
    roster_.join(event.facts);
    joined(event.facts.cluster, new_here);
}

void SerialStrategy::take(const strategy_event::Changed& event) {
    roster_.change(event.facts);
    if (roster_.find(event.facts.cluster) != nullptr) changed(event.facts.cluster);
}

void SerialStrategy::take(const strategy_event::Left& event) { roster_.leave(event.cluster); }

void SerialStrategy::take(const strategy_event::Admitted& event) {
    const std::string& cluster = event.facts.cluster;
    roster_.change(event.facts);
    const auto task = roster_.finish(cluster);
    if (roster_.find(cluster) != nullptr) changed(cluster);
    admitted({cluster, event.sequence, event.facts.samples, event.base_version,
              version_ - std::min(version_, event.base_version), task});
}

void SerialStrategy::take(const strategy_event::Failed& event) {
    if (const auto task = roster_.finish(event.cluster)) failed(event.cluster, *task);
}

void SerialStrategy::take(const strategy_event::Committed& event) {
    version_ = event.version;
    committing_ = false;
    committed(event);
}

void SerialStrategy::assign(const std::string& cluster, std::uint32_t group) {
    ECOPIPE_CHECK(!committing_);
    roster_.assign(cluster, {group, version_});
    decisions_.emplace_back(strategy_decision::Assign{cluster, group});
}

void SerialStrategy::drop(const std::string& cluster, std::uint64_t sequence, std::string reason) {
    decisions_.emplace_back(strategy_decision::Drop{cluster, sequence, std::move(reason)});
}

void SerialStrategy::move(const std::string& cluster, int from, int to) {
    decisions_.emplace_back(strategy_decision::Group{cluster, from, to});
}

void SerialStrategy::commit(strategy_decision::Commit commit) {
    ECOPIPE_CHECK(!committing_);
    committing_ = true;
    decisions_.emplace_back(std::move(commit));
}

nlohmann::json SerialStrategy::save() const {
    Json state = {{"strategy", name()},
                  {"now_s", now_s_},
                  {"version", version_},
                  {"committing", committing_},
                  {"clients", roster_.save()}};
    if (asked_wake_) state["wake_s"] = *asked_wake_;
    save_more(state);
    return state;
}

Result<void> SerialStrategy::restore(const nlohmann::json& state) {
    try {
        if (state.at("strategy") != name())
            return fail(ExitCode::kBadFile,
                        fmt::format("the strategy's state: expected {}, found {}", name(),
                                    shown(state.at("strategy"))));
        now_s_ = state.at("now_s").get<double>();
        version_ = state.at("version").get<std::uint64_t>();
        committing_ = state.at("committing").get<bool>();
        asked_wake_.reset();
        if (state.contains("wake_s")) asked_wake_ = state.at("wake_s").get<double>();
        roster_.restore(state.at("clients"));
        restore_more(state);
        return {};
    } catch (const std::exception& error) {
        return fail(ExitCode::kBadFile,
                    fmt::format("the strategy's state: {}", one_line(error.what())));
    }
}

}  // namespace ecopipe
