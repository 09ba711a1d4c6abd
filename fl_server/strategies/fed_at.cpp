#include <fmt/format.h>

#include <algorithm>

#include "fl_server/strategies/grouped_rounds.h"
#include "fl_server/strategies/kinds.h"
#include "fl_server/strategies/latency_tiers.h"

namespace ecopipe {
namespace {

// Chai et al., "FedAT: A High-Performance and Communication-Efficient Federated Learning System
// with Asynchronous Tiers" (SC 2021): M latency tiers, FedAvg inside each; when a tier finishes,
// the global model is recombined from the newest model of every tier,
//   w = sum over m of (T_{M+1-m} / T) w_tier_m,
// T_m being the updates of tier m so far: a slow tier weighs what a fast one has earned.
//
// Deviation: the mirror runs over those tiers that have reported at all. Over all M tiers a fast
// tier would weigh T_M = 0 until the slowest has reported, and its first rounds would be lost.
// Compression is not part of the strategy.
class FedAt : public GroupedRounds {
  public:
    explicit FedAt(GroupRules rules)
        : GroupedRounds(rules), tiers_(rules.groups), updates_(rules.groups, 0) {}
    std::string name() const override { return "fedat"; }

  private:
    void joined(const std::string& cluster, bool) override { profile(cluster); }
    void changed(const std::string& cluster) override { profile(cluster); }

    void profile(const std::string& cluster) {
        const auto before = tiers_.tiers();
        if (!tiers_.profile(roster().find(cluster)->facts)) return;
        for (const auto& [name, tier] : tiers_.tiers()) {
            const auto old = before.find(name);
            const int from = old == before.end() ? -1 : static_cast<int>(old->second);
            if (from != static_cast<int>(tier)) move(name, from, static_cast<int>(tier));
        }
    }

    std::vector<std::string> candidates(std::uint32_t tier) const override {
        return tiers_.idle(roster(), tier);
    }

    static std::string stored(std::uint32_t tier) { return fmt::format("tier-{}", tier); }

    Recipe recipe(const std::vector<ClosedRound>& rounds) override {
        const ClosedRound& round = rounds.front();
        ++updates_[round.group];
        Recipe recipe;
        recipe.close = {round.close};
        recipe.keep = {{stored(round.group),
                        {Term{Term::Source::kBase, round.base_version, 0, "", 1},
                         Term{Term::Source::kDelta, 0, round.close.slot, "", 1}}}};
        std::vector<std::uint32_t> reported;
        double total = 0;
        for (std::uint32_t m = 0; m < updates_.size(); ++m) {
            if (updates_[m] == 0) continue;
            reported.push_back(m);
            total += static_cast<double>(updates_[m]);
        }
        for (std::size_t i = 0; i < reported.size(); ++i) {
            const std::uint32_t mirror = reported[reported.size() - 1 - i];
            recipe.next.push_back(Term{Term::Source::kStored, 0, 0, stored(reported[i]),
                                       static_cast<double>(updates_[mirror]) / total});
        }
        return recipe;
    }

    void save_more(Json& state) const override {
        GroupedRounds::save_more(state);
        state["tiers"] = tiers_.save();
        state["updates"] = updates_;
    }
    void restore_more(const Json& state) override {
        GroupedRounds::restore_more(state);
        tiers_.restore(state.at("tiers"));
        updates_ = state.at("updates").get<std::vector<std::uint64_t>>();
        updates_.resize(rules().groups);
    }

    LatencyTiers tiers_;
    std::vector<std::uint64_t> updates_;  // T_m
};

}  // namespace

StrategyKind fed_at() {
    return {"fedat",
            "latency tiers, synchronous inside, recombined with mirrored update counts",
            joined({integer_rule("tiers", 1, 1000, 5, "latency tiers of equal size")},
                   RoundRules::rules(2)),
            0.05,
            [](const Parameters& p) {
                return std::size_t{p.integer("clients_per_round") / p.integer("tiers")};
            },
            [](const StrategySettings& s) -> std::unique_ptr<Strategy> {
                return std::make_unique<FedAt>(GroupRules{RoundRules::from(s.parameters),
                                                          s.parameters.integer("tiers"), false,
                                                          s.robust, s.seed});
            }};
}

}  // namespace ecopipe
