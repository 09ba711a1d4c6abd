#include "fl_server/strategies/grouped_rounds.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/random.h"

namespace ecopipe {
namespace {

// Of an update that is used although its round is over.
constexpr StalenessWeight kLateWeight{StalenessWeight::Kind::kPoly, 0.5, 0};

}  // namespace

GroupedRounds::GroupedRounds(GroupRules rules) : rules_(rules) {
    for (std::uint32_t g = 0; g < rules_.groups; ++g)
        groups_.push_back({{}, UpdateSlot(g, rules_.robust), 0});
}

std::vector<std::string> GroupedRounds::select(std::uint32_t, std::vector<std::string> idle,
                                               std::size_t count, std::uint64_t seed) {
    return select_at_random(std::move(idle), count, seed);
}

void GroupedRounds::admitted(const Update& update) {
    if (!update.task || update.task->group >= groups_.size()) {
        drop(update.cluster, update.sequence, "nobody is waiting for it");
        return;
    }
    Group& group = groups_[update.task->group];
    auto weight = static_cast<double>(update.samples);
    if (!group.round.answer(update.cluster, update.base_version)) {
        if (!rules_.round.use_late) {
            drop(update.cluster, update.sequence, "late: its round is over");
            return;
        }
        weight *= kLateWeight.at(update.staleness);
    }
    group.samples += static_cast<double>(update.samples);
    group.slot.add(update.cluster, update.sequence, weight, decisions());
}

void GroupedRounds::failed(const std::string& cluster, const Assignment& task) {
    if (task.group < groups_.size()) groups_[task.group].round.give_up(cluster);
}

// Groups that have somebody at work or idle share the clients that train at once, the first ones
// taking what is left over.
std::size_t GroupedRounds::share(std::uint32_t group, std::size_t idle) const {
    RoundRules rules = rules_.round;
    if (rules.clients > 0 && rules_.groups > 1) {
        std::uint32_t alive = 0;
        std::uint32_t before = 0;
        for (std::uint32_t g = 0; g < rules_.groups; ++g) {
            if (!groups_[g].round.open() && candidates(g).empty()) continue;
            ++alive;
            if (g < group) ++before;
        }
        const std::uint32_t rest = alive > 0 ? rules.clients % alive : 0;
        rules.clients = std::max(1U, rules.clients / std::max(1U, alive) + (before < rest ? 1 : 0));
    }
    return rules.clients == 0 ? idle : std::min<std::size_t>(rules.clients, idle);
}

void GroupedRounds::start_round(std::uint32_t g) {
    std::vector<std::string> idle = candidates(g);
    if (idle.empty()) return;
    const std::size_t target = share(g, idle.size());
    RoundRules here = rules_.round;
    here.clients = static_cast<std::uint32_t>(target);
    SyncRound& round = groups_[g].round;
    const std::size_t asked = here.asked(idle.size());
    const auto chosen = select(g, std::move(idle), asked,
                               keyed_seed(rules_.seed, {g, round.number(), 0x726f756e64}));
    round.start(now(), version(), chosen, target, rules_.round.deadline_s);
    for (const std::string& cluster : chosen) assign(cluster, g);
}

bool GroupedRounds::close_round(std::uint32_t g, std::vector<ClosedRound>& closed,
                                strategy_decision::Commit& commit) {
    Group& group = groups_[g];
    const std::vector<std::string> late = group.round.late(now());
    commit.late.insert(commit.late.end(), late.begin(), late.end());
    group.round.close();
    const double samples = std::exchange(group.samples, 0);
    if (group.slot.count() == 0) return false;
    const std::vector<std::string> names = group.slot.clusters();
    const auto close = group.slot.close(0, decisions());
    group.slot.clear();
    if (!close) return false;
    const std::uint64_t base = group.round.version();
    closed.push_back({g, *close, base, version() - base, samples});
    commit.clusters.insert(commit.clusters.end(), names.begin(), names.end());
    return true;
}

void GroupedRounds::finish(strategy_decision::Commit made, const std::vector<ClosedRound>& closed) {
    made.group = closed.front().group;
    std::sort(made.clusters.begin(), made.clusters.end());
    made.recipe = recipe(closed);
    commit(std::move(made));
}

void GroupedRounds::close_each() {
    for (std::uint32_t g = 0; g < groups_.size(); ++g) {
        if (!groups_[g].round.over(now())) continue;
        std::vector<ClosedRound> closed;
        strategy_decision::Commit made;
        if (!close_round(g, closed, made)) continue;
        finish(std::move(made), closed);
        return;
    }
}

void GroupedRounds::close_together() {
    const bool running = std::any_of(groups_.begin(), groups_.end(), [&](const Group& group) {
        return group.round.open() && !group.round.over(now());
    });
    if (running) return;
    std::vector<ClosedRound> closed;
    strategy_decision::Commit made;
    for (std::uint32_t g = 0; g < groups_.size(); ++g)
        if (groups_[g].round.open()) close_round(g, closed, made);
    if (!closed.empty()) finish(std::move(made), closed);
}

void GroupedRounds::advance() {
    if (rules_.together) {
        close_together();
    } else {
        close_each();
    }
    if (committing() || roster().connected() < rules_.round.min_clients) return;
    if (rules_.together &&
        std::any_of(groups_.begin(), groups_.end(), [](const Group& g) { return g.round.open(); }))
        return;
    for (std::uint32_t g = 0; g < groups_.size(); ++g)
        if (!groups_[g].round.open()) start_round(g);
}

std::optional<double> GroupedRounds::next_deadline() const {
    std::optional<double> first;
    for (const Group& group : groups_)
        if (const auto deadline = group.round.deadline(); deadline && *deadline > now())
            first = first ? std::min(*first, *deadline) : *deadline;
    return first;
}

void GroupedRounds::save_more(Json& state) const {
    Json groups = Json::array();
    for (const Group& group : groups_)
        groups.push_back({{"round", group.round.save()},
                          {"slot", group.slot.save()},
                          {"samples", group.samples}});
    state["groups"] = std::move(groups);
}

void GroupedRounds::restore_more(const Json& state) {
    for (std::size_t g = 0; g < groups_.size(); ++g) {
        const Json& group = state.at("groups").at(g);
        groups_[g].round.restore(group.at("round"), rules_.round.deadline_s);
        groups_[g].slot.restore(group.at("slot"));
        groups_[g].samples = group.at("samples").get<double>();
    }
}

}  // namespace ecopipe
