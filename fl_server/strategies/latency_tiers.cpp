#include "fl_server/strategies/latency_tiers.h"

#include <algorithm>

namespace ecopipe {

bool LatencyTiers::profile(const ClientFacts& facts) {
    if (!(facts.latency_s > 0) || latency_s_.contains(facts.cluster)) return false;
    latency_s_[facts.cluster] = facts.latency_s;
    const auto before = tier_;
    cut();
    return tier_ != before;
}

void LatencyTiers::cut() {
    std::vector<std::pair<double, std::string>> order;
    for (const auto& [name, latency] : latency_s_) order.emplace_back(latency, name);
    std::sort(order.begin(), order.end());
    for (std::size_t i = 0; i < order.size(); ++i)
        tier_[order[i].second] = static_cast<std::uint32_t>(i * tiers_ / order.size());
}

std::uint32_t LatencyTiers::tier_of(const std::string& cluster) const {
    const auto found = tier_.find(cluster);
    return found == tier_.end() ? tiers_ - 1 : found->second;
}

std::vector<std::string> LatencyTiers::idle(const Roster& roster, std::uint32_t tier) const {
    std::vector<std::string> members = roster.idle();
    std::erase_if(members, [&](const std::string& name) { return tier_of(name) != tier; });
    return members;
}

void LatencyTiers::restore(const Json& state) {
    latency_s_ = state.get<std::map<std::string, double>>();
    tier_.clear();
    cut();
}

}  // namespace ecopipe
