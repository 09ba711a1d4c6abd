#pragma once
// One synchronous round of a set of clients: who owes an update, and when it is over. Pure.

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/strict_json.h"
#include "fl_server/strategies/parameters.h"

namespace ecopipe {

struct RoundRules {
    std::uint32_t clients = 0;      // updates that end a round; 0: of all who are idle at its start
    double over_selection = 1;      // so many times more are asked; the first `clients` count
    double deadline_s = 600;        // then it ends with what it has
    std::uint32_t min_clients = 1;  // connected, before a round starts
    bool use_late = false;          // an update of an earlier round counts in the present one

    [[nodiscard]] static ParameterRules rules(std::uint32_t min_clients);
    [[nodiscard]] static RoundRules from(const Parameters& parameters);
    // How many to ask of so many who are idle.
    [[nodiscard]] std::size_t asked(std::size_t idle) const;
};

class SyncRound {
  public:
    [[nodiscard]] bool open() const { return open_; }
    // `asked` is not empty; the round is over at `target` updates.
    void start(double now_s, std::uint64_t version, const std::vector<std::string>& asked,
               std::size_t target, double deadline_s);
    // Whether it was owed to this round: then it counts.
    bool answer(const std::string& cluster, std::uint64_t base_version);
    void give_up(const std::string& cluster) { owed_.erase(cluster); }
    [[nodiscard]] bool over(double now_s) const;
    // Who owes an update still although its deadline has come, in name order.
    [[nodiscard]] std::vector<std::string> late(double now_s) const;
    void close() { open_ = false; }

    [[nodiscard]] std::uint64_t version() const { return version_; }  // that it trains from
    [[nodiscard]] std::uint64_t number() const { return number_; }    // rounds started so far
    [[nodiscard]] std::optional<double> deadline() const;

    [[nodiscard]] Json save() const;
    void restore(const Json& state, double deadline_s);

  private:
    bool open_ = false;
    std::uint64_t number_ = 0;
    std::uint64_t version_ = 0;
    double started_s_ = 0;
    double deadline_s_ = 0;
    std::size_t target_ = 0;
    std::size_t answered_ = 0;
    std::set<std::string> owed_;
};

}  // namespace ecopipe
