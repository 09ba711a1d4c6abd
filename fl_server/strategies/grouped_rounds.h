#pragma once
// Synchronous rounds inside each of one or more groups, each with its own slot; what a finished
// round becomes is the subclass's to say. FedAvg is one group of all.

#include "fl_server/strategies/selection.h"
#include "fl_server/strategies/serial_strategy.h"
#include "fl_server/strategies/staleness.h"
#include "fl_server/strategies/sync_round.h"
#include "fl_server/strategies/update_slot.h"

namespace ecopipe {

struct GroupRules {
    RoundRules round;
    std::uint32_t groups = 1;
    bool together = false;  // groups wait for one another: one commit when all have finished
    RobustSettings robust;
    std::uint64_t seed = 0;
};

// A round that is over, with at least one update.
struct ClosedRound {
    std::uint32_t group = 0;
    Recipe::Close close;
    std::uint64_t base_version = 0;
    std::uint64_t staleness = 0;
    double samples = 0;
};

class GroupedRounds : public SerialStrategy {
  protected:
    explicit GroupedRounds(GroupRules rules);

    // Idle members of a group, in name order.
    [[nodiscard]] virtual std::vector<std::string> candidates(std::uint32_t group) const = 0;
    [[nodiscard]] virtual std::vector<std::string> select(std::uint32_t group,
                                                          std::vector<std::string> idle,
                                                          std::size_t count, std::uint64_t seed);
    // More than one round only when groups wait for one another.
    [[nodiscard]] virtual Recipe recipe(const std::vector<ClosedRound>& rounds) = 0;

    void admitted(const Update& update) override;
    void failed(const std::string& cluster, const Assignment& task) override;
    void advance() override;
    [[nodiscard]] std::optional<double> next_deadline() const override;
    void save_more(Json& state) const override;
    void restore_more(const Json& state) override;

    [[nodiscard]] const GroupRules& rules() const { return rules_; }

  private:
    struct Group {
        SyncRound round;
        UpdateSlot slot;
        double samples = 0;  // of the round's updates
    };
    [[nodiscard]] std::size_t share(std::uint32_t group, std::size_t idle) const;
    void start_round(std::uint32_t group);
    // Adds it to the commit unless it has no update to use.
    bool close_round(std::uint32_t group, std::vector<ClosedRound>& closed,
                     strategy_decision::Commit& commit);
    void finish(strategy_decision::Commit made, const std::vector<ClosedRound>& closed);
    void close_each();
    void close_together();

    GroupRules rules_;
    std::vector<Group> groups_;
};

}  // namespace ecopipe
