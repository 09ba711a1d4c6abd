#pragma once
// How a federation decides: who trains when, from what, in which group, and what becomes of each
// update. A state machine without tensors, sockets, files or clocks; the server and the simulator
// drive the same objects. One file a strategy under strategies/.
//
//   decisions = strategy.on(now_s, event)
//
// Deterministic: equal events give equal decisions. `save`/`restore` carry the whole state through
// a restart (JSON), so that a server killed at any point decides as if it had not been.

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <variant>
#include <vector>

#include "core/result.h"
#include "fl_server/numbers/recipe.h"

namespace ecopipe {

struct ClientFacts {
    std::string cluster;
    double latency_s = 0;  // task to update, both transfers included; 0: not known yet
    std::uint64_t samples = 0;
    std::vector<std::uint64_t> label_counts;  // empty: not told
};

namespace strategy_event {
struct Joined {
    ClientFacts facts;
};  // connected, or back
struct Changed {
    ClientFacts facts;
};  // latency or labels measured anew
struct Left {
    std::string cluster;
};
// Complete, checked and durable. `staleness` = current version - base_version.
struct Admitted {
    ClientFacts facts;
    std::uint64_t sequence = 0;
    std::uint64_t base_version = 0;
    std::uint64_t staleness = 0;
};
// What was assigned will not come, or was refused; the reason is for the record.
struct Failed {
    std::string cluster;
    std::string reason;
};
struct Committed {
    std::uint64_t version = 0;
    double accuracy = -1;
};  // a Commit is durable
struct Tick {};  // the instant asked for by Wake has come
}  // namespace strategy_event
using StrategyEvent =
    std::variant<strategy_event::Joined, strategy_event::Changed, strategy_event::Left,
                 strategy_event::Admitted, strategy_event::Failed, strategy_event::Committed,
                 strategy_event::Tick>;

namespace strategy_decision {
struct Assign {
    std::string cluster;
    std::uint32_t group = 0;
};  // a task from the current global version
struct Drop {
    std::string cluster;
    std::uint64_t sequence = 0;
    std::string reason;
};  // an admitted update that is not used
struct Group {
    std::string cluster;
    int from = -1;
    int to = -1;
};  // -1: the drop-out group
struct Commit {
    std::uint32_t group = 0;
    std::vector<std::string> clusters;  // that contributed
    Recipe recipe;
    std::vector<std::string> late;  // owed an update still when a deadline ended their round
};
struct Wake {
    double at_s = 0;
};
}  // namespace strategy_decision
using StrategyDecision =
    std::variant<strategy_decision::Assign, Fold, strategy_decision::Drop, strategy_decision::Group,
                 strategy_decision::Commit, strategy_decision::Wake>;
using StrategyDecisions = std::vector<StrategyDecision>;

class Strategy {
  public:
    virtual ~Strategy() = default;
    [[nodiscard]] virtual std::string name() const = 0;
    // One thread. `now_s` never decreases. After a Commit nothing is assigned or committed before
    // Committed.
    [[nodiscard]] virtual StrategyDecisions on(double now_s, const StrategyEvent& event) = 0;
    [[nodiscard]] virtual nlohmann::json save() const = 0;
    [[nodiscard]] virtual Result<void> restore(const nlohmann::json& state) = 0;
};

}  // namespace ecopipe
