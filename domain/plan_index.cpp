#include "domain/plan_index.h"

#include <algorithm>

namespace ecopipe {
namespace {

void add_once(std::vector<std::string>& to, std::span<const std::string> devices) {
    for (const std::string& device : devices)
        if (std::find(to.begin(), to.end(), device) == to.end()) to.push_back(device);
}

}  // namespace

PlanIndex::PlanIndex(const Plan& plan) {
    for (const StagePlan& stage : plan.stages) {
        const StageId id{static_cast<std::uint32_t>(stages_.size())};
        Stage entry{{stage.device}, {stage.first_layer, stage.last_layer}, {}, {}};
        if (!stages_.empty()) {
            entry.producers.push_back({id.value - 1});
            stages_.back().consumers.push_back(id);
        }
        add_once(devices_, entry.devices);
        for (const std::string& device : entry.devices) slices_[device].push_back(id);
        stages_.push_back(std::move(entry));
    }
    for (const Stage& stage : stages_) {
        if (stage.producers.empty()) add_once(input_devices_, stage.devices);
        if (stage.consumers.empty()) add_once(label_devices_, stage.devices);
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

std::vector<std::string> PlanIndex::neighbours_of(const std::string& device) const {
    std::vector<std::string> out;
    for (const StageId stage : stages_of(device)) {
        for (const StageId other : producers_of(stage)) add_once(out, devices_of(other));
        for (const StageId other : consumers_of(stage)) add_once(out, devices_of(other));
    }
    std::erase(out, device);
    return out;
}

}  // namespace ecopipe
