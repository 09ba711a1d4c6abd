#pragma once
// Which transfers take turns: the resources of a pipeline's costs while they are put together.

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "planner/cost/cluster.h"
#include "planner/cost/pipeline_costs.h"

namespace ecopipe {

// Gives each direction between two devices, and each medium, its place in PipelineCosts::resources.
class ResourceTable {
  public:
    ResourceTable(const Cluster& cluster, PipelineCosts& costs, bool named)
        : cluster_(cluster), costs_(costs), named_(named) {}
    Transfer transfer(int from, int to, double occupy_ms, double latency_ms) {
        if (from == to) return {};
        const auto a = static_cast<std::size_t>(from);
        const auto b = static_cast<std::size_t>(to);
        const std::string& medium = cluster_.link(a, b).medium;
        if (costs_.graph && medium.empty()) return between(a, b, occupy_ms, latency_ms);
        for (std::size_t r = 0; r < costs_.resources.size(); ++r) {
            Resource& known = costs_.resources[r];
            if (medium.empty() ? !known.medium.empty() || known.from != a || known.to != b
                               : known.medium != medium)
                continue;
            ++known.uses;
            return {occupy_ms, latency_ms, static_cast<int>(r)};
        }
        costs_.resources.push_back({named_ ? name(a, b, medium) : std::string(), 1, a, b, medium});
        return {occupy_ms, latency_ms, static_cast<int>(costs_.resources.size()) - 1};
    }

  private:
    // A graph's pipeline has many more of them than stages: their places are looked up.
    Transfer between(std::size_t from, std::size_t to, double occupy_ms, double latency_ms) {
        const std::size_t devices = cluster_.devices.size();
        place_.resize(devices * devices, -1);
        int& place = place_[from * devices + to];
        if (place < 0) {
            place = static_cast<int>(costs_.resources.size());
            costs_.resources.push_back(
                {named_ ? name(from, to, {}) : std::string(), 0, from, to, {}});
        }
        ++costs_.resources[static_cast<std::size_t>(place)].uses;
        return {occupy_ms, latency_ms, place};
    }
    [[nodiscard]] std::string name(std::size_t from, std::size_t to,
                                   const std::string& medium) const {
        if (!medium.empty()) return "medium " + medium;
        return fmt::format("link {}-{}", cluster_.devices[from].name, cluster_.devices[to].name);
    }

    const Cluster& cluster_;
    PipelineCosts& costs_;
    bool named_;
    std::vector<int> place_;  // of each direction in a graph's resources
};

}  // namespace ecopipe
