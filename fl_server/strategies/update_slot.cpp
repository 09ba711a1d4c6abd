#include "fl_server/strategies/update_slot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace ecopipe {

std::string RobustSettings::name() const {
    switch (rule) {
        case Combine::Rule::kMean:
            return "none";
        case Combine::Rule::kCoordinateMedian:
            return "median";
        case Combine::Rule::kTrimmedMean:
            return "trimmed_mean";
        case Combine::Rule::kMultiKrum:
            return "multi_krum";
    }
    return "none";
}

std::size_t RobustSettings::updates_min() const {
    switch (rule) {
        case Combine::Rule::kMean:
            return 1;
        case Combine::Rule::kCoordinateMedian:
        case Combine::Rule::kTrimmedMean:
            return 3;
        case Combine::Rule::kMultiKrum:
            return 2 * static_cast<std::size_t>(byzantine) + 3;
    }
    return 1;
}

void UpdateSlot::add(const std::string& cluster, std::uint64_t sequence, double weight,
                     StrategyDecisions& decisions) {
    clusters_.push_back(cluster);
    if (robust_.rule == Combine::Rule::kMean) {
        decisions.emplace_back(Fold{cluster, sequence, slot_, weight});
    } else {
        held_.push_back({cluster, sequence, slot_, 1});
    }
}

std::optional<Recipe::Close> UpdateSlot::close(double divisor, StrategyDecisions& decisions) {
    if (robust_.rule == Combine::Rule::kMean)
        return Recipe::Close{slot_, Combine{Combine::Rule::kMean, divisor, 0, 0, 0}};
    const std::size_t updates = held_.size();
    if (updates < robust_.updates_min()) {
        for (const Fold& held : held_)
            decisions.emplace_back(strategy_decision::Drop{
                held.cluster, held.sequence,
                fmt::format("{} needs {} updates, the round has {}", robust_.name(),
                            robust_.updates_min(), updates)});
        clear();
        return std::nullopt;
    }
    for (const Fold& held : held_) decisions.emplace_back(held);
    held_.clear();
    Combine combine;
    combine.rule = robust_.rule;
    combine.trim = robust_.trim;
    combine.byzantine = robust_.byzantine;
    combine.keep = robust_.keep > 0
                       ? std::min(robust_.keep, static_cast<std::uint32_t>(updates))
                       : static_cast<std::uint32_t>(updates) - robust_.byzantine;
    return Recipe::Close{slot_, combine};
}

void UpdateSlot::clear() {
    held_.clear();
    clusters_.clear();
}

Json UpdateSlot::save() const {
    Json held = Json::array();
    for (const Fold& fold : held_) held.push_back({fold.cluster, fold.sequence});
    return {{"clusters", clusters_}, {"held", std::move(held)}};
}

void UpdateSlot::restore(const Json& state) {
    clusters_ = state.at("clusters").get<std::vector<std::string>>();
    held_.clear();
    for (const Json& fold : state.at("held"))
        held_.push_back(
            {fold.at(0).get<std::string>(), fold.at(1).get<std::uint64_t>(), slot_, 1});
}

}  // namespace ecopipe
