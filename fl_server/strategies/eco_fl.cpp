#include <algorithm>

#include "core/random.h"
#include "fl_server/strategies/grouped_rounds.h"
#include "fl_server/strategies/grouping.h"
#include "fl_server/strategies/kinds.h"

namespace ecopipe {
namespace {

constexpr double kYoung = 10;  // versions

struct EcoFlRules {
    StalenessWeight weight;
    double alpha = 1;
    bool mix_models = false;
    bool balanced = true;
    double pool = 3;
    bool regroup = true;
    double profile_every_s = 60;
    double average = 0.9;
};

// Eco-FL (Ye et al., ICPP 2022), RECONSTRUCTED (grouping.h says from what): clients in groups by
// latency and label distribution, FedAvg inside a group, groups mixed into the global model as
// they finish, by their staleness tau_g (versions committed since the group's round began):
//   mixing: delta   w <- w + alpha_t Delta_g               alpha_t = alpha s(tau_g)
//   mixing: model   w <- (1 - alpha_t) w + alpha_t (B + Delta_g)     B: what the round began from
// Delta_g is the sample-weighted mean change of the group's round.
//
// Our own choices: (1) `delta` is the default. `model`, the form of FedAsync and of the authors'
// aggregator, pulls the global model back to the stale B each time: G groups of like pace, each
// with share a, move it by a / (1 + a (G - 1)) of a round's change instead of a. (2) A round
// asks members whose labels together are nearest to those of all (`selection: balanced`), so that
// the distribution term acts on the few that train as it does on the group. (3) A client in the
// drop-out group gets a task every `profile_every_s` whose update is dropped: it is profiled. (4)
// What is served is an exponential average of the versions (`average`; Polyak and Juditsky 1992):
// a version leans to the labels of the group that made it, their average does not. Clients train
// from the newest version, so that the average costs no speed.
class EcoFl : public GroupedRounds {
  public:
    EcoFl(GroupRules rules, GroupingRules grouping, EcoFlRules own)
        : GroupedRounds(rules), grouping_(grouping), own_(own) {}
    std::string name() const override { return "eco-fl"; }

  private:
    [[nodiscard]] std::uint32_t profiling() const { return rules().groups; }

    void joined(const std::string& cluster, bool) override { take_facts(cluster); }
    void changed(const std::string& cluster) override { take_facts(cluster); }

    void take_facts(const std::string& cluster) {
        const ClientFacts& facts = roster().find(cluster)->facts;
        const auto seen = seen_latency_s_.find(cluster);
        if (seen != seen_latency_s_.end() && seen->second > 0 && !own_.regroup) return;
        if (seen != seen_latency_s_.end() && seen->second == facts.latency_s) return;
        seen_latency_s_[cluster] = facts.latency_s;
        grouping_.update(facts);
        stale_groups_ = true;
    }

    // Groups are made when the first rounds may start, anew when there are twice as many to group,
    // and otherwise improved.
    void refresh_groups() {
        if (!stale_groups_) return;
        stale_groups_ = false;
        const auto known = static_cast<std::size_t>(
            std::count_if(seen_latency_s_.begin(), seen_latency_s_.end(),
                          [](const auto& entry) { return entry.second > 0; }));
        if (known == 0) return;
        std::map<std::string, int> before;
        for (const auto& [name, client] : roster().clients())
            before[name] = grouping_.group_of(name);
        if (known >= 2 * formed_with_) {
            formed_with_ = known;
            static_cast<void>(grouping_.form());
        }
        static_cast<void>(grouping_.regroup());
        for (const auto& [name, from] : before)
            if (const int to = grouping_.group_of(name); to != from) move(name, from, to);
    }

    void advance() override {
        if (roster().connected() >= rules().round.min_clients) refresh_groups();
        GroupedRounds::advance();
        if (!committing() && roster().connected() >= rules().round.min_clients) profile();
    }

    void profile() {
        for (const std::string& name : roster().idle()) {
            if (grouping_.group_of(name) != Grouping::kDropOut) continue;
            const auto last = profiled_at_s_.find(name);
            if (last != profiled_at_s_.end() && now() < last->second + own_.profile_every_s)
                continue;
            profiled_at_s_[name] = now();
            assign(name, profiling());
        }
    }

    [[nodiscard]] std::optional<double> next_deadline() const override {
        auto first = GroupedRounds::next_deadline();
        for (const std::string& name : roster().idle()) {
            if (grouping_.group_of(name) != Grouping::kDropOut) continue;
            const auto last = profiled_at_s_.find(name);
            if (last == profiled_at_s_.end()) continue;
            const double due = last->second + own_.profile_every_s;
            if (due > now()) first = first ? std::min(*first, due) : due;
        }
        return first;
    }

    void admitted(const Update& update) override {
        if (update.task && update.task->group == profiling()) {
            drop(update.cluster, update.sequence, "profiling: it is in the drop-out group");
            return;
        }
        GroupedRounds::admitted(update);
    }

    std::vector<std::string> candidates(std::uint32_t group) const override {
        std::vector<std::string> members = roster().idle();
        std::erase_if(members, [&](const std::string& name) {
            return grouping_.group_of(name) != static_cast<int>(group);
        });
        return members;
    }

    std::vector<std::string> select(std::uint32_t group, std::vector<std::string> idle,
                                    std::size_t count, std::uint64_t seed) override {
        if (!own_.balanced) return GroupedRounds::select(group, std::move(idle), count, seed);
        return select_balanced(idle, count, roster(), grouping_.all_labels(), own_.pool, seed);
    }

    Recipe recipe(const std::vector<ClosedRound>& rounds) override {
        double samples = 0;
        for (const ClosedRound& round : rounds) samples += round.samples;
        Recipe recipe;
        double kept = 1;
        for (const ClosedRound& round : rounds) {
            recipe.close.push_back(round.close);
            const double share = own_.alpha * own_.weight.at(round.staleness) *
                                 (samples > 0 ? round.samples / samples : 1);
            recipe.next.push_back(Term{Term::Source::kDelta, 0, round.close.slot, "", share});
            if (!own_.mix_models) continue;
            kept -= share;
            recipe.next.push_back(Term{Term::Source::kBase, round.base_version, 0, "", share});
        }
        recipe.next.insert(recipe.next.begin(), Term{Term::Source::kGlobal, 0, 0, "", kept});
        if (own_.average > 0) recipe.keep.push_back(served(recipe.next));
        return recipe;
    }

    // Young averages forget faster, or they would remember the beginning for long.
    [[nodiscard]] Recipe::Keep served(const std::vector<Term>& next) const {
        const auto before = static_cast<double>(version());
        const double memory = std::min(own_.average, before / (before + kYoung));
        Recipe::Keep keep{kServedModel, next};
        for (Term& term : keep.terms) term.coefficient *= 1 - memory;
        if (memory > 0)
            keep.terms.push_back(Term{Term::Source::kStored, 0, 0, kServedModel, memory});
        return keep;
    }

    void save_more(Json& state) const override {
        GroupedRounds::save_more(state);
        state["grouping"] = grouping_.save();
        state["seen_latency_s"] = seen_latency_s_;
        state["profiled_at_s"] = profiled_at_s_;
        state["formed_with"] = formed_with_;
        state["stale_groups"] = stale_groups_;
    }
    void restore_more(const Json& state) override {
        GroupedRounds::restore_more(state);
        grouping_.restore(state.at("grouping"));
        seen_latency_s_ = state.at("seen_latency_s").get<std::map<std::string, double>>();
        profiled_at_s_ = state.at("profiled_at_s").get<std::map<std::string, double>>();
        formed_with_ = state.at("formed_with").get<std::size_t>();
        stale_groups_ = state.at("stale_groups").get<bool>();
    }

    Grouping grouping_;
    EcoFlRules own_;
    std::map<std::string, double> seen_latency_s_;
    std::map<std::string, double> profiled_at_s_;
    std::size_t formed_with_ = 0;
    bool stale_groups_ = false;
};

ParameterRules own_rules() {
    return {
        integer_rule("groups", 1, 1000, 3, "at most so many"),
        number_rule("lambda", 0, 1000, 0.02, "weight of the label distribution against latency"),
        number_rule("hysteresis", 1e-6, 1000, 0.02, "what a regrouping must gain"),
        number_rule("reach", 0, 1000, 3, "of a group, in mean deviations of latency"),
        number_rule("slack", 0, 1000, 0.5, "of a group's reach, in shares of its latency"),
        number_rule("return_margin", 0, 100, 0.2, "nearer than the reach, to come back"),
        word_rule("regroup", {"on", "off"}, "on", "whether changed latencies move clients"),
        word_rule("between", {"asynchronous", "synchronous"}, "asynchronous",
                  "whether groups wait for one another"),
        word_rule("mixing", {"delta", "model"}, "delta", "what a group's round is mixed in as"),
        number_rule("alpha", 1e-6, 10, 1, "mixing weight of a group's round"),
        word_rule("selection", {"balanced", "random"}, "balanced", "whom a group's round asks"),
        number_rule("pool", 1, 1000, 3, "balanced: times the candidates it chooses from"),
        changeable(
            number_rule("profile_every_s", 0.1, 1e9, 60, "of clients in the drop-out group")),
        number_rule("average", 0, 0.999, 0.9,
                    "memory of the average of versions that is served; 0: the newest is")};
}

}  // namespace

StrategyKind eco_fl() {
    return {
        "eco-fl",
        "groups by latency and labels, synchronous inside, asynchronous between (reconstructed)",
        joined(joined(own_rules(), StalenessWeight::rules("poly", 0.5, 4)), RoundRules::rules(2)),
        0.05,
        [](const Parameters& p) {
            return std::size_t{p.integer("clients_per_round") / p.integer("groups")};
        },
        [](const StrategySettings& s) -> std::unique_ptr<Strategy> {
            const Parameters& p = s.parameters;
            GroupingRules grouping;
            grouping.groups = p.integer("groups");
            grouping.lambda = p.number("lambda");
            grouping.hysteresis = p.number("hysteresis");
            grouping.reach = p.number("reach");
            grouping.slack = p.number("slack");
            grouping.return_margin = p.number("return_margin");
            EcoFlRules own{
                StalenessWeight::from(p),          p.number("alpha"),  p.word("mixing") == "model",
                p.word("selection") == "balanced", p.number("pool"),   p.word("regroup") == "on",
                p.number("profile_every_s"),       p.number("average")};
            return std::make_unique<EcoFl>(
                GroupRules{RoundRules::from(p), p.integer("groups"),
                           p.word("between") == "synchronous", s.robust, s.seed},
                grouping, own);
        }};
}

}  // namespace ecopipe
