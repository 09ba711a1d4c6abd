#pragma once
// Eco-FL's groups: clients by response latency and label distribution. A RECONSTRUCTION: the paper
// (Ye et al., ICPP 2022) was not available to us in full; the cost below follows its abstract and
// the helpers in its authors' repository, everything marked (*) is our own choice.
//
// The cost of client n in group g:
//   COST(n, g) = |l_n - L_g| / S  +  lambda * JS(P, P_g with n) / ln 2
// l_n latency; L_g mean latency of the group's members; S the largest latency of all (*: both
// terms lie in [0, 1]); P the labels of all clients; P_g the sum of the members' label counts.
// Clients come to a group greedily by COST; after that a client changes its group only if that
// lowers the total cost (*)
//   PHI = (1/N) sum over n of |l_n - L_g(n)| / S  +  lambda * sum over g of (N_g / N) JS(P, P_g) /
//   ln 2
// by more than hysteresis / N; two clients may also change places (*). PHI is never negative, so
// the moves end, and it never rises.
//
// Drop-out group: a client with |l_n - L_g| > RT_g for every group, RT_g = reach * (mean deviation
// of grouped clients) + slack * L_g (*), or of unknown latency. It returns when it is within RT_g /
// (1 + return_margin) of some group. Every client is in exactly one group or in the drop-out group.
//
// Pure and deterministic: equal calls give equal groups, clients are always taken in name order.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/strict_json.h"
#include "fl_server/strategies/label_distribution.h"
#include "fl_server/strategies/strategy.h"

namespace ecopipe {

struct GroupingRules {
    std::uint32_t groups = 3;
    double lambda = 0.02;      // weight of the label term; 0: latency alone
    double hysteresis = 0.02;  // a move must lower N * PHI by more than this
    double reach = 3;
    double slack = 0.5;
    double return_margin = 0.2;
    double size_spread = 2;  // groups keep between N/(G spread) and spread N/G members (*)
    std::uint32_t members_min =
        4;  // fewer groups are used while there are not so many for each (*)
};

class Grouping {
  public:
    static constexpr int kDropOut = -1;
    struct Move {
        std::string cluster;
        int from = kDropOut;
        int to = kDropOut;
    };

    explicit Grouping(GroupingRules rules) : rules_(rules) {}

    // A client that came or whose facts changed. New ones wait in the drop-out group for the next
    // call of `regroup`.
    void update(const ClientFacts& facts);
    // Groups everybody from nothing.
    std::vector<Move> form();
    // Drops out, takes back, and moves while PHI falls. Ends: see above.
    std::vector<Move> regroup();

    [[nodiscard]] int group_of(const std::string& cluster) const;
    [[nodiscard]] double total_cost() const;  // PHI
    [[nodiscard]] const LabelCounts& all_labels() const { return all_; }
    [[nodiscard]] std::size_t members(int group) const;
    [[nodiscard]] double centre_s(int group) const;  // L_g; 0 for an empty group

    [[nodiscard]] Json save() const;
    void restore(const Json& state);

  private:
    struct Client {
        double latency_s = 0;
        std::vector<std::uint64_t> labels;
        int group = kDropOut;
    };
    struct Group {
        std::vector<double> latencies;  // of the members, ascending: sums depend on the set alone
        double latency_sum = 0;
        LabelCounts labels;
    };
    void put(Client& client, int group);
    void take(Client& client);
    [[nodiscard]] double cost_of_group(const Group& group) const;  // N times its part of PHI
    [[nodiscard]] double join_cost(const Client& client, const Group& group) const;
    [[nodiscard]] double mean_deviation_s() const;
    void refresh(Group& group) const;
    [[nodiscard]] std::size_t usable_groups() const;
    [[nodiscard]] int cheapest_group(const Client& client) const;
    void descend_by_moves(bool& moved);
    void descend_by_exchanges(bool& moved);
    void greedy();
    void drop_and_return();
    void descend();
    [[nodiscard]] std::size_t grouped() const;

    GroupingRules rules_;
    std::map<std::string, Client> clients_;
    std::vector<Group> groups_;
    LabelCounts all_;
    double scale_s_ = 1;  // S
};

}  // namespace ecopipe
