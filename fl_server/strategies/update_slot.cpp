#include "fl_server/strategies/update_slot.h"

#include <algorithm>

#include "fl_server/numbers/robust_rules.h"

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

Combine RobustSettings::combine(std::size_t updates, double divisor) const {
    if (rule == Combine::Rule::kMean) return {rule, divisor, 0, 0, 0};
    const auto n = static_cast<std::uint32_t>(updates);
    const std::uint32_t most = n > byzantine + 2 ? n - byzantine - 2 : 0;
    return {rule, 0, trim, byzantine, keep > 0 ? std::min(keep, most) : most};
}

std::string RobustSettings::refusal(std::size_t updates) const {
    return combine_refusal(combine(updates, 0), updates);
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
    const std::size_t updates = clusters_.size();
    if (const std::string reason = robust_.refusal(updates); !reason.empty()) {
        for (const Fold& held : held_)
            decisions.emplace_back(strategy_decision::Drop{held.cluster, held.sequence, reason});
        clear();
        return std::nullopt;
    }
    for (const Fold& held : held_) decisions.emplace_back(held);
    held_.clear();
    return Recipe::Close{slot_, robust_.combine(updates, divisor)};
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
        held_.push_back({fold.at(0).get<std::string>(), fold.at(1).get<std::uint64_t>(), slot_, 1});
}

}  // namespace ecopipe
