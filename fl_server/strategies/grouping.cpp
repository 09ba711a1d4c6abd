#include "fl_server/strategies/grouping.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "core/check.h"

namespace ecopipe {
namespace {

double mean(double sum, std::size_t count) {
    return count == 0 ? 0 : sum / static_cast<double>(count);
}

}  // namespace

void Grouping::put(Client& client, int group) {
    client.group = group;
    if (group == kDropOut) return;
    Group& to = groups_[static_cast<std::size_t>(group)];
    to.latencies.insert(
        std::upper_bound(to.latencies.begin(), to.latencies.end(), client.latency_s),
        client.latency_s);
    refresh(to);
    add_counts(to.labels, client.labels);
}

void Grouping::refresh(Group& group) const {
    group.latency_sum = std::accumulate(group.latencies.begin(), group.latencies.end(), 0.0);
}

void Grouping::take(Client& client) {
    if (client.group == kDropOut) return;
    Group& from = groups_[static_cast<std::size_t>(client.group)];
    const auto at =
        std::lower_bound(from.latencies.begin(), from.latencies.end(), client.latency_s);
    ECOPIPE_CHECK(at != from.latencies.end() && *at == client.latency_s);
    from.latencies.erase(at);
    refresh(from);
    add_counts(from.labels, client.labels, -1);
    client.group = kDropOut;
}

void Grouping::update(const ClientFacts& facts) {
    Client& client = clients_[facts.cluster];
    const int group = client.group;
    take(client);
    add_counts(all_, client.labels, -1);
    client.latency_s = facts.latency_s;
    client.labels = facts.label_counts;
    add_counts(all_, client.labels);
    if (groups_.empty()) groups_.resize(rules_.groups);
    put(client, group);
}

double Grouping::cost_of_group(const Group& group) const {
    const std::size_t count = group.latencies.size();
    if (count == 0) return 0;
    const double centre = mean(group.latency_sum, count);
    double deviation = 0;
    for (const double latency : group.latencies) deviation += std::abs(latency - centre);
    return deviation / scale_s_ + rules_.lambda * static_cast<double>(count) *
                                      js_divergence(all_, group.labels) / std::numbers::ln2;
}

double Grouping::join_cost(const Client& client, const Group& group) const {
    LabelCounts with = group.labels;
    add_counts(with, client.labels);
    const double away =
        group.latencies.empty()
            ? 0
            : std::abs(client.latency_s - mean(group.latency_sum, group.latencies.size()));
    return away / scale_s_ + rules_.lambda * js_divergence(all_, with) / std::numbers::ln2;
}

double Grouping::mean_deviation_s() const {
    double deviation = 0;
    for (const Group& group : groups_) {
        const double centre = mean(group.latency_sum, group.latencies.size());
        for (const double latency : group.latencies) deviation += std::abs(latency - centre);
    }
    return mean(deviation, grouped());
}

std::size_t Grouping::grouped() const {
    std::size_t count = 0;
    for (const Group& group : groups_) count += group.latencies.size();
    return count;
}

std::size_t Grouping::usable_groups() const {
    const auto known = static_cast<std::size_t>(
        std::count_if(clients_.begin(), clients_.end(),
                      [](const auto& entry) { return entry.second.latency_s > 0; }));
    return std::clamp<std::size_t>(known / std::max(1U, rules_.members_min), 1, rules_.groups);
}

int Grouping::cheapest_group(const Client& client) const {
    int best = 0;
    double best_cost = std::numeric_limits<double>::infinity();
    for (std::size_t g = 0; g < usable_groups(); ++g) {
        const double cost = join_cost(client, groups_[g]);
        if (cost < best_cost - 1e-12) {
            best = static_cast<int>(g);
            best_cost = cost;
        }
    }
    return best;
}

double Grouping::total_cost() const {
    double sum = 0;
    for (const Group& group : groups_) sum += cost_of_group(group);
    return mean(sum, grouped());
}

int Grouping::group_of(const std::string& cluster) const {
    const auto found = clients_.find(cluster);
    return found == clients_.end() ? kDropOut : found->second.group;
}

std::size_t Grouping::members(int group) const {
    return groups_.empty() ? 0 : groups_.at(static_cast<std::size_t>(group)).latencies.size();
}

double Grouping::centre_s(int group) const {
    if (groups_.empty()) return 0;
    const Group& one = groups_.at(static_cast<std::size_t>(group));
    return mean(one.latency_sum, one.latencies.size());
}

// Everybody of known latency, one after the other in name order, to the group of least COST that
// has room; a group's centre is meanwhile a quantile of all latencies.
void Grouping::greedy() {
    std::vector<double> sorted;
    for (const auto& [name, client] : clients_)
        if (client.latency_s > 0) sorted.push_back(client.latency_s);
    std::sort(sorted.begin(), sorted.end());
    const std::size_t groups = usable_groups();
    const std::size_t room = (sorted.size() + groups - 1) / groups;
    for (auto& [name, client] : clients_) {
        if (!(client.latency_s > 0)) continue;
        int best = kDropOut;
        double best_cost = std::numeric_limits<double>::infinity();
        for (std::size_t g = 0; g < groups; ++g) {
            if (groups_[g].latencies.size() >= room) continue;
            const double centre = sorted[(2 * g + 1) * sorted.size() / (2 * groups)];
            LabelCounts with = groups_[g].labels;
            add_counts(with, client.labels);
            const double cost = std::abs(client.latency_s - centre) / scale_s_ +
                                rules_.lambda * js_divergence(all_, with) / std::numbers::ln2;
            if (cost < best_cost - 1e-12) {
                best = static_cast<int>(g);
                best_cost = cost;
            }
        }
        put(client, best);
    }
}

std::vector<Grouping::Move> Grouping::form() {
    std::map<std::string, int> before;
    scale_s_ = 0;
    for (auto& [name, client] : clients_) {
        before[name] = client.group;
        take(client);
        scale_s_ = std::max(scale_s_, client.latency_s);
    }
    if (!(scale_s_ > 0)) scale_s_ = 1;
    groups_.assign(rules_.groups, {});
    // Two starts: the greedy one, and tiers of equal size by latency alone. The better end is
    // taken.
    greedy();
    descend();
    const double greedy_cost = total_cost();
    std::map<std::string, int> greedy_groups;
    std::vector<std::pair<double, std::string>> order;
    for (auto& [name, client] : clients_) {
        greedy_groups[name] = client.group;
        if (client.latency_s > 0) order.emplace_back(client.latency_s, name);
        take(client);
    }
    std::sort(order.begin(), order.end());
    for (std::size_t i = 0; i < order.size(); ++i)
        put(clients_[order[i].second], static_cast<int>(i * usable_groups() / order.size()));
    descend();
    if (greedy_cost <= total_cost()) {
        for (auto& [name, client] : clients_) take(client);
        for (auto& [name, client] : clients_) put(client, greedy_groups[name]);
    }
    std::vector<Move> moves;
    for (const auto& [name, client] : clients_)
        if (client.group != before[name]) moves.push_back({name, before[name], client.group});
    return moves;
}

void Grouping::drop_and_return() {
    const double deviation = mean_deviation_s();
    std::vector<double> centres;
    std::vector<double> reaches;
    for (const Group& group : groups_) {
        const double centre = mean(group.latency_sum, group.latencies.size());
        centres.push_back(centre);
        reaches.push_back(
            group.latencies.empty() ? -1 : rules_.reach * deviation + rules_.slack * centre);
    }
    const bool nobody = grouped() == 0;
    for (auto& [name, client] : clients_) {
        if (!(client.latency_s > 0)) {
            take(client);
            continue;
        }
        const double margin = client.group == kDropOut ? 1 + rules_.return_margin : 1;
        bool fits = nobody;
        for (std::size_t g = 0; g < groups_.size(); ++g)
            fits = fits || (reaches[g] >= 0 &&
                            std::abs(client.latency_s - centres[g]) * margin <= reaches[g]);
        // Who is faster than all is no straggler.
        fits = fits || std::all_of(centres.begin(), centres.end(), [&](double centre) {
                   return centre == 0 || client.latency_s <= centre;
               });
        if (!fits) {
            take(client);
            continue;
        }
        if (client.group != kDropOut) continue;
        put(client, cheapest_group(client));
    }
}

// One pass in name order: each client to the group that lowers N * PHI most.
void Grouping::descend_by_moves(bool& moved) {
    const std::size_t usable = usable_groups();
    const double fair = static_cast<double>(grouped()) / static_cast<double>(usable);
    const auto least = static_cast<std::size_t>(fair / rules_.size_spread);
    const auto most = static_cast<std::size_t>(std::ceil(fair * rules_.size_spread));
    for (auto& [name, client] : clients_) {
        const int from = client.group;
        if (from == kDropOut || (members(from) <= least && from < static_cast<int>(usable)))
            continue;
        int best = from;
        double best_gain = rules_.hysteresis;
        const double from_before = cost_of_group(groups_[static_cast<std::size_t>(from)]);
        for (int to = 0; to < static_cast<int>(usable); ++to) {
            if (to == from || members(to) >= most) continue;
            const Group& target = groups_[static_cast<std::size_t>(to)];
            const double before = from_before + cost_of_group(target);
            take(client);
            put(client, to);
            const double gain = before - cost_of_group(groups_[static_cast<std::size_t>(from)]) -
                                cost_of_group(target);
            take(client);
            put(client, from);
            if (gain > best_gain) {
                best = to;
                best_gain = gain;
            }
        }
        if (best == from) continue;
        take(client);
        put(client, best);
        moved = true;
    }
}

// One pass over all pairs in name order: they change places where that lowers N * PHI.
void Grouping::descend_by_exchanges(bool& moved) {
    const auto pair_cost = [&](int a, int b) {
        return cost_of_group(groups_[static_cast<std::size_t>(a)]) +
               cost_of_group(groups_[static_cast<std::size_t>(b)]);
    };
    for (auto one = clients_.begin(); one != clients_.end(); ++one) {
        Client& a = one->second;
        for (auto two = std::next(one); two != clients_.end(); ++two) {
            Client& b = two->second;
            const int of_a = a.group;
            const int of_b = b.group;
            if (of_a == kDropOut || of_b == kDropOut || of_a == of_b) continue;
            if (a.labels == b.labels && a.latency_s == b.latency_s) continue;
            const auto exchange = [&](int to_a, int to_b) {
                take(a);
                take(b);
                put(a, to_a);
                put(b, to_b);
            };
            const double before = pair_cost(of_a, of_b);
            exchange(of_b, of_a);
            if (before - pair_cost(of_a, of_b) > rules_.hysteresis) {
                moved = true;
            } else {
                exchange(of_a, of_b);
            }
        }
    }
}

// Exchanges only when no single move helps; both lower N * PHI by more than the hysteresis, so this
// ends after at most N * PHI / hysteresis changes.
void Grouping::descend() {
    for (bool moved = true; moved;) {
        moved = false;
        descend_by_moves(moved);
        if (!moved) descend_by_exchanges(moved);
    }
}

std::vector<Grouping::Move> Grouping::regroup() {
    std::map<std::string, int> before;
    for (const auto& [name, client] : clients_) before[name] = client.group;
    drop_and_return();
    descend();
    std::vector<Move> moves;
    for (const auto& [name, client] : clients_)
        if (client.group != before[name]) moves.push_back({name, before[name], client.group});
    return moves;
}

Json Grouping::save() const {
    Json clients = Json::object();
    for (const auto& [name, client] : clients_)
        clients[name] = {
            {"latency_s", client.latency_s}, {"labels", client.labels}, {"group", client.group}};
    return {{"clients", std::move(clients)}, {"scale_s", scale_s_}};
}

void Grouping::restore(const Json& state) {
    clients_.clear();
    all_.clear();
    groups_.assign(rules_.groups, {});
    scale_s_ = state.at("scale_s").get<double>();
    for (const auto& [name, saved] : state.at("clients").items()) {
        Client client;
        client.latency_s = saved.at("latency_s").get<double>();
        client.labels = saved.at("labels").get<std::vector<std::uint64_t>>();
        add_counts(all_, client.labels);
        put(client, saved.at("group").get<int>());
        clients_[name] = std::move(client);
    }
}

}  // namespace ecopipe
