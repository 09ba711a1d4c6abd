#pragma once
// Drives one strategy by hand over a model of one number, with the real aggregator, so that a test
// reads as the rounds that a paper describes.

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "fl_server/numbers/aggregator.h"
#include "fl_server/strategies/registry.h"
#include "tests/fl_server/service/toy_federation.h"

namespace ecopipe::test {

class Desk {
  public:
    explicit Desk(StrategySettings settings, float start = 0)
        : settings_(std::move(settings)), layout_(vector_layout(1)) {
        strategy_ = make_strategy(settings_).value();
        bases_[0] = flat_floats({start});
        aggregator_ = std::make_unique<Aggregator>(
            layout_, AggregatorState{0, bases_[0], {}, nullptr},
            [this](std::uint64_t version) -> Result<BlockSourcePtr> {
                return memory_source(bases_.at(version));
            },
            AggregatorOptions{});
    }

    void join(const std::string& cluster, double latency_s = 1, std::uint64_t samples = 1,
              std::vector<std::uint64_t> labels = {}) {
        facts_[cluster] = {cluster, latency_s, samples, std::move(labels)};
        tell(strategy_event::Joined{facts_[cluster]});
    }
    // The cluster's finished task: it moved the number that it started from by `delta`.
    void deliver(std::string cluster, float delta, double latency_s = 0) {
        const std::uint64_t base = assigned.at(cluster);
        assigned.erase(cluster);
        if (latency_s > 0) facts_[cluster].latency_s = latency_s;
        const std::uint64_t sequence = ++sequence_[cluster];
        const float from = floats_of(*bases_.at(base))[0];
        const auto bytes = flat_floats({from + delta});
        updates_[{cluster, sequence}] = checked(layout_, bytes, bases_.at(base), base);
        tell(strategy_event::Admitted{facts_[cluster], sequence, base,
                                      aggregator_->state().version - base});
    }
    void fail(std::string cluster) {
        assigned.erase(cluster);
        tell(strategy_event::Failed{cluster, "test"});
    }
    void leave(const std::string& cluster) { tell(strategy_event::Left{cluster}); }
    void wait_until(double at_s) {
        now_s = at_s;
        tell(strategy_event::Tick{});
    }
    // Like a server that was killed and started again.
    void restart() {
        const Json state = Json::parse(strategy_->save().dump());
        strategy_ = make_strategy(settings_).value();
        ASSERT_TRUE(strategy_->restore(state).has_value());
        ASSERT_EQ(strategy_->save(), state);
    }

    [[nodiscard]] float global() const { return floats_of(*aggregator_->state().global)[0]; }
    [[nodiscard]] float served() const { return floats_of(*aggregator_->state().served())[0]; }
    [[nodiscard]] std::uint64_t version() const { return aggregator_->state().version; }
    [[nodiscard]] Strategy& strategy() { return *strategy_; }

    double now_s = 0;
    float accuracy = -1;                            // told with every commit
    std::map<std::string, std::uint64_t> assigned;  // at work, with the base version
    std::map<std::string, std::uint32_t> group;     // of the last assignment
    std::vector<std::string> dropped;               // "cluster: reason"
    std::map<std::string, int> placed;              // by Group decisions
    std::vector<double> wakes;
    std::vector<strategy_decision::Commit> commits;

  private:
    void tell(const StrategyEvent& event) {
        bool committed = false;
        for (const StrategyDecision& decision : strategy_->on(now_s, event)) {
            if (const auto* assign = std::get_if<strategy_decision::Assign>(&decision)) {
                EXPECT_FALSE(committed) << "an assignment before the commit was durable";
                EXPECT_FALSE(assigned.contains(assign->cluster)) << assign->cluster << " twice";
                assigned[assign->cluster] = aggregator_->state().version;
                group[assign->cluster] = assign->group;
            } else if (const auto* fold = std::get_if<Fold>(&decision)) {
                EXPECT_TRUE(aggregator_->fold(*fold, updates_.at({fold->cluster, fold->sequence})));
            } else if (const auto* drop = std::get_if<strategy_decision::Drop>(&decision)) {
                dropped.push_back(drop->cluster + ": " + drop->reason);
            } else if (const auto* move = std::get_if<strategy_decision::Group>(&decision)) {
                placed[move->cluster] = move->to;
            } else if (const auto* wake = std::get_if<strategy_decision::Wake>(&decision)) {
                wakes.push_back(wake->at_s);
            } else if (const auto* commit = std::get_if<strategy_decision::Commit>(&decision)) {
                EXPECT_FALSE(committed) << "two commits at once";
                committed = true;
                commits.push_back(*commit);
                const auto done = aggregator_->commit(commit->recipe);
                ASSERT_TRUE(done) << done.error().message;
                bases_[done->version] = aggregator_->state().global;
            }
        }
        if (committed) tell(strategy_event::Committed{version(), accuracy});
    }

    StrategySettings settings_;
    ModelLayout layout_;
    std::unique_ptr<Strategy> strategy_;
    std::map<std::uint64_t, std::shared_ptr<const std::string>> bases_;
    std::unique_ptr<Aggregator> aggregator_;
    std::map<std::string, ClientFacts> facts_;
    std::map<std::string, std::uint64_t> sequence_;
    std::map<std::pair<std::string, std::uint64_t>, CheckedUpdate> updates_;
};

inline StrategySettings settings(const std::string& name, std::map<std::string, Json> values = {}) {
    StrategySettings out = default_settings(name).value();
    for (auto& [key, value] : values) out.parameters.set(key, value);
    return out;
}

}  // namespace ecopipe::test
