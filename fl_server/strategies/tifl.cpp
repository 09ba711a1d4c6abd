#include <algorithm>
#include <numeric>

#include "core/random.h"
#include "fl_server/strategies/kinds.h"
#include "fl_server/strategies/latency_tiers.h"
#include "fl_server/strategies/one_group.h"

namespace ecopipe {
namespace {

// Chai et al., "TiFL: A Tier-based Federated Learning System" (HPDC 2020), adaptive tier selection
// (Algorithm 2): each round trains clients of one latency tier, drawn by probability among the
// tiers that have credits left; every `interval` rounds the n tiers are ranked by accuracy, the
// worst first, and tier i of the ranking gets p_i = (n - i) / (n (n + 1) / 2).
//
// Deviation: the paper tests the global model on each tier's own test data. The server has no
// such data; a tier's accuracy is here that of the newest global model that it made, as far as
// commits are tested. Without tests, and before the first, all tiers are alike.
class Tifl : public OneGroup {
  public:
    Tifl(GroupRules rules, const Parameters& parameters)
        : OneGroup("tifl", rules, std::nullopt),
          interval_(parameters.integer("interval")),
          tiers_(parameters.integer("tiers")),
          credits_(parameters.integer("tiers"), parameters.integer("credits")),
          accuracy_(parameters.integer("tiers"), -1),
          probability_(parameters.integer("tiers"), 1.0) {}

  private:
    void joined(const std::string& cluster, bool) override {
        tiers_.profile(roster().find(cluster)->facts);
    }
    void changed(const std::string& cluster) override {
        tiers_.profile(roster().find(cluster)->facts);
    }

    // The tier of the next round: it stays drawn until a round is committed, so that a tier
    // without idle clients is waited for, unless nobody of it is there at all.
    std::vector<std::string> candidates(std::uint32_t) const override {
        std::vector<double> weight(probability_.size(), 0);
        bool credit = false;
        for (std::size_t t = 0; t < weight.size(); ++t) credit = credit || credits_[t] > 0;
        double sum = 0;
        for (std::uint32_t t = 0; t < weight.size(); ++t) {
            if ((credit && credits_[t] == 0) || tiers_.idle(roster(), t).empty()) continue;
            weight[t] = probability_[t];
            sum += weight[t];
        }
        if (sum <= 0) return {};
        Rng rng(keyed_seed(rules().seed, {rounds_, 0x7469666c}));
        double draw = rng.uniform() * sum;
        std::uint32_t tier = 0;
        for (std::uint32_t t = 0; t < weight.size(); ++t) {
            if (weight[t] <= 0) continue;
            tier = t;
            if (draw < weight[t]) break;
            draw -= weight[t];
        }
        return tiers_.idle(roster(), tier);
    }

    std::vector<std::string> select(std::uint32_t group, std::vector<std::string> idle,
                                    std::size_t count, std::uint64_t seed) override {
        tier_ = tiers_.tier_of(idle.front());
        if (credits_[tier_] > 0) --credits_[tier_];
        return OneGroup::select(group, std::move(idle), count, seed);
    }

    void committed(const strategy_event::Committed& event) override {
        if (event.accuracy >= 0) accuracy_[tier_] = event.accuracy;
        ++rounds_;
        if (rounds_ % interval_ == 0) rank();
    }

    // Tiers not yet tested count as the worst.
    void rank() {
        const std::size_t n = accuracy_.size();
        std::vector<std::size_t> order(n);
        std::iota(order.begin(), order.end(), std::size_t{0});
        if (std::all_of(accuracy_.begin(), accuracy_.end(), [](double a) { return a < 0; })) return;
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return accuracy_[a] < accuracy_[b]; });
        const auto all = static_cast<double>(n * (n + 1)) / 2;
        for (std::size_t i = 0; i < n; ++i)
            probability_[order[i]] = static_cast<double>(n - i) / all;
    }

    void save_more(Json& state) const override {
        OneGroup::save_more(state);
        state["tiers"] = tiers_.save();
        state["credits"] = credits_;
        state["accuracy"] = accuracy_;
        state["probability"] = probability_;
        state["rounds"] = rounds_;
        state["tier"] = tier_;
    }
    void restore_more(const Json& state) override {
        OneGroup::restore_more(state);
        tiers_.restore(state.at("tiers"));
        credits_ = state.at("credits").get<std::vector<std::uint32_t>>();
        accuracy_ = state.at("accuracy").get<std::vector<double>>();
        probability_ = state.at("probability").get<std::vector<double>>();
        rounds_ = state.at("rounds").get<std::uint64_t>();
        tier_ = state.at("tier").get<std::uint32_t>();
    }

    std::uint64_t interval_;
    LatencyTiers tiers_;
    std::vector<std::uint32_t> credits_;
    std::vector<double> accuracy_;
    std::vector<double> probability_;
    std::uint64_t rounds_ = 0;
    std::uint32_t tier_ = 0;  // of the round under way
};

}  // namespace

StrategyKind tifl() {
    return {
        "tifl",
        "one latency tier a round, the less accurate more often",
        joined({integer_rule("tiers", 1, 1000, 5, "latency tiers of equal size"),
                integer_rule("interval", 1, 1000000, 10, "rounds between two rankings"),
                integer_rule("credits", 1, 1000000000, 1000000, "rounds that each tier may train")},
               RoundRules::rules(2)),
        0,
        [](const Parameters& p) { return std::size_t{p.integer("clients_per_round")}; },
        [](const StrategySettings& s) -> std::unique_ptr<Strategy> {
            return std::make_unique<Tifl>(
                GroupRules{RoundRules::from(s.parameters), 1, false, s.robust, s.seed},
                s.parameters);
        }};
}

}  // namespace ecopipe
