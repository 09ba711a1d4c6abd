#include "domain/plan_index.h"

#include <algorithm>

namespace ecopipe {
namespace {

template <class T>
void add_once(std::vector<T>& to, std::span<const T> more) {
    for (const T& each : more)
        if (std::find(to.begin(), to.end(), each) == to.end()) to.push_back(each);
}
template <class T>
void add_once(std::vector<T>& to, const T& one) {
    add_once(to, std::span<const T>(&one, 1));
}

}  // namespace

int gradient_receiver(std::span<const ValueUser> users, std::size_t i, int producer) {
    while (i-- > 0)
        if (users[i].users > 1) return users[i].stage;
    return producer;
}

PlanIndex::PlanIndex(const Plan& plan, const ValueGraph& flow) : tree_(plan.sum_blocks) {
    for (const StagePlan& stage : plan.stages) {
        const StageId id{static_cast<std::uint32_t>(stages_.size())};
        Stage entry;
        entry.layers = {stage.first_layer, stage.last_layer};
        entry.owner.resize(static_cast<std::size_t>(tree_.blocks()));
        for (const StageHolder& holder : ecopipe::holders_of(stage, tree_.blocks())) {
            for (const int block : holder.blocks)
                if (block >= 0 && block < tree_.blocks())
                    entry.owner[static_cast<std::size_t>(block)] = entry.devices.size();
            entry.devices.push_back(holder.device);
        }
        add_once(devices_, std::span<const std::string>(entry.devices));
        for (const std::string& device : entry.devices) slices_[device].push_back(id);
        stages_.push_back(std::move(entry));
    }
    if (stages_.empty()) return;
    const auto layers = static_cast<std::size_t>(stages_.back().layers.last + 1);
    find_ways(flow.layers() > 0 ? flow : ValueGraph::chain(std::vector<bool>(layers, true)));
}

void PlanIndex::find_ways(const ValueGraph& flow) {
    for (std::size_t value = 0; value < flow.values().size(); ++value)
        find_way(flow, static_cast<int>(value));
    for (const TiedUse& use : flow.ties()) {
        const std::optional<StageId> home = stage_of(use.home);
        const std::optional<StageId> user = stage_of(use.user);
        if (use.trainable && home && user && home != user) ties_.push_back({use, *home, *user});
    }
    for (Stage& stage : stages_) {
        for (const ValueWay& way : stage.ways.arriving)
            if (way.stage) add_once(stage.producers, *way.stage);
        for (const ValueWay& way : stage.ways.departing)
            if (way.stage) add_once(stage.consumers, *way.stage);
        std::sort(stage.producers.begin(), stage.producers.end());
        std::sort(stage.consumers.begin(), stage.consumers.end());
    }
}

void PlanIndex::find_way(const ValueGraph& flow, int value) {
    const ModelValue& facts = flow.values()[static_cast<std::size_t>(value)];
    const std::optional<StageId> producer =
        facts.producer < 0 ? std::nullopt : stage_of(facts.producer);
    std::vector<ValueUser> users;
    for (const int layer : facts.consumers) {
        const std::optional<StageId> stage = stage_of(layer);
        if (!stage || stage == producer) continue;  // the loss is the last stage's own
        const int number = static_cast<int>(stage->value);
        if (users.empty() || users.back().stage != number) users.push_back({number, 0});
        ++users.back().users;
    }
    const auto id = [](int stage) { return StageId{static_cast<std::uint32_t>(stage)}; };
    if (!producer) {
        input_stages_.emplace_back();
        for (const ValueUser& user : users) input_stages_.back().push_back(id(user.stage));
    }
    for (const ValueUser& user : users) {
        stages_[id(user.stage).index()].ways.arriving.push_back({value, producer});
        if (producer) stages_[producer->index()].ways.departing.push_back({value, id(user.stage)});
    }
    if (!flow.returns_gradient(value)) return;
    for (std::size_t i = users.size(); i-- > 0;) {
        const int from = users[i].stage;
        const StageId to = id(gradient_receiver(users, i, static_cast<int>(producer->value)));
        stages_[id(from).index()].ways.returned.push_back({value, to});
        stages_[to.index()].ways.returning.push_back({value, id(from)});
    }
}

std::optional<std::size_t> PlanIndex::place(const std::string& device) const {
    const auto found = std::find(devices_.begin(), devices_.end(), device);
    if (found == devices_.end()) return std::nullopt;
    return static_cast<std::size_t>(found - devices_.begin());
}

std::span<const StageId> PlanIndex::stages_of(const std::string& device) const {
    const auto found = slices_.find(device);
    return found == slices_.end() ? std::span<const StageId>() : found->second;
}

std::optional<StageId> PlanIndex::stage_of(int layer) const {
    const auto found = std::find_if(stages_.begin(), stages_.end(), [&](const Stage& stage) {
        return stage.layers.contains(layer);
    });
    if (found == stages_.end()) return std::nullopt;
    return StageId{static_cast<std::uint32_t>(found - stages_.begin())};
}

std::span<const std::string> PlanIndex::holders_of(int layer) const {
    const std::optional<StageId> stage = stage_of(layer);
    return stage ? devices_of(*stage) : std::span<const std::string>();
}

bool PlanIndex::holds(const std::string& device, int layer) const {
    const auto holders = holders_of(layer);
    return std::find(holders.begin(), holders.end(), device) != holders.end();
}

std::vector<bool> PlanIndex::blocks_of(StageId stage, const std::string& device) const {
    const Stage& of = stages_.at(stage.index());
    std::vector<bool> owned;
    for (const std::size_t owner : of.owner) owned.push_back(of.devices[owner] == device);
    return owned;
}

std::vector<std::string> PlanIndex::input_devices(std::uint32_t micro_batch,
                                                  std::size_t input) const {
    std::vector<std::string> devices;
    if (input >= input_stages_.size()) return devices;
    for (const StageId stage : input_stages_[input])
        add_once(devices, owner_of(stage, micro_batch));
    return devices;
}

std::vector<std::string> PlanIndex::neighbours_of(const std::string& device) const {
    std::vector<std::string> out;
    for (const StageId stage : stages_of(device)) {
        add_once(out, devices_of(stage));
        const StageWays& ways = ways_of(stage);
        for (const auto* each : {&ways.arriving, &ways.departing, &ways.returning, &ways.returned})
            for (const ValueWay& way : *each)
                if (way.stage) add_once(out, devices_of(*way.stage));
    }
    for (const TieWay& tie : ties_) {
        const std::span<const std::string> home = devices_of(tie.home);
        const std::span<const std::string> user = devices_of(tie.user);
        if (std::find(home.begin(), home.end(), device) != home.end()) add_once(out, user);
        if (std::find(user.begin(), user.end(), device) != user.end()) add_once(out, home);
    }
    std::erase(out, device);
    // In layer order, as their first stages stand.
    std::sort(out.begin(), out.end(), [&](const std::string& a, const std::string& b) {
        return stages_of(a).front() < stages_of(b).front();
    });
    std::erase(out, device);
    return out;
}

}  // namespace ecopipe
