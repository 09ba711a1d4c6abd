#include "orchestrator/session/recovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/units.h"
#include "transport/data/data_plane.h"

namespace ecopipe {
namespace {

constexpr double kCopies = 2;            // the recovery point, and the one under way
constexpr double kCopyBytesPerMs = 1e6;  // 1 GB/s: cloning and handing over, on a slow board
constexpr double kCopyShare = 0.02;      // of the step, for snapshots
constexpr double kIdleShare = 0.5;       // of a link's idle time, for replicas
constexpr double kEveryMax = 1000;

}  // namespace

void Holdings::stored(const std::string& holder, int first_layer, int last_layer,
                      std::uint64_t step) {
    for (const int layer : layers_)
        if (layer >= first_layer && layer <= last_layer) held_[step][layer].insert(holder);
}

void Holdings::forget(const std::string& holder) {
    for (auto& [step, layers] : held_)
        for (auto& [layer, holders] : layers) holders.erase(holder);
}

void Holdings::rewound_to(std::uint64_t step) { held_.erase(held_.upper_bound(step), held_.end()); }

void Holdings::drop_before(std::uint64_t step) {
    held_.erase(held_.begin(), held_.lower_bound(step));
}

bool Holdings::holds(const std::string& holder, int layer, std::uint64_t step) const {
    const auto at = held_.find(step);
    if (at == held_.end()) return false;
    const auto of = at->second.find(layer);
    return of != at->second.end() && of->second.contains(holder);
}

std::vector<std::string> Holdings::holders(int layer, std::uint64_t step) const {
    const auto at = held_.find(step);
    if (at == held_.end()) return {};
    const auto of = at->second.find(layer);
    if (of == at->second.end()) return {};
    return {of->second.begin(), of->second.end()};
}

std::uint64_t Holdings::newest_point(std::size_t copies) const {
    for (auto at = held_.rbegin(); at != held_.rend() && at->first > base_; ++at) {
        const auto& [step, layers] = *at;
        const bool whole = std::all_of(layers_.begin(), layers_.end(), [&](int layer) {
            const auto of = layers.find(layer);
            return of != layers.end() && of->second.size() >= copies;
        });
        if (whole) return step;
    }
    return base_;
}

RestorePlan plan_restore(const Holdings& holdings, const PlanIndex& plan, std::uint64_t step) {
    RestorePlan out;
    out.step = step;
    std::map<std::string, int> gives;
    const auto add = [](std::vector<LayerTransfer>& list, int layer, const std::string& peer) {
        const auto number = static_cast<std::uint32_t>(layer);
        if (!list.empty() && list.back().peer == peer && list.back().last_layer + 1 == number) {
            list.back().last_layer = number;
        } else {
            list.push_back({number, number, peer});
        }
    };
    for (const int layer : holdings.stateful_layers()) {
        for (const std::string& receiver : plan.holders_of(layer)) {
            std::string giver;
            if (holdings.holds(receiver, layer, step)) {
                giver = receiver;
            } else if (const auto holders = holdings.holders(layer, step); !holders.empty()) {
                giver = *std::min_element(
                    holders.begin(), holders.end(),
                    [&](const auto& a, const auto& b) { return gives[a] < gives[b]; });
            } else {
                ECOPIPE_CHECK(step == holdings.base());
                giver = kPortalPeer;
            }
            add(out.restore[receiver], layer, giver);
            if (giver == receiver) continue;
            ++gives[giver];
            add(out.supply[giver], layer, receiver);
        }
    }
    return out;
}

bool ReplicaPlan::keeps(const std::string& device) const {
    return std::any_of(buddies.begin(), buddies.end(),
                       [&](const auto& entry) { return entry.second == device; });
}

double ReplicaPlan::bytes_on(const std::string& device) const {
    const auto found = state_bytes.find(device);
    return every == 0 || found == state_bytes.end() ? 0 : copies() * found->second;
}

ReplicaPlan place_replicas(const ReplicaRequest& request) {
    ReplicaPlan plan;
    std::map<std::string, double> room;
    for (const ReplicaDevice& device : request.devices) room[device.name] = device.free_bytes;
    std::vector<std::pair<std::string, double>> owners(request.state_bytes.begin(),
                                                       request.state_bytes.end());
    std::stable_sort(owners.begin(), owners.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    for (const auto& [owner, bytes] : owners) {
        room[owner] -= kCopies * bytes;
        if (room[owner] < 0) {
            plan.why_not = fmt::format(
                "device {} has no memory left for a snapshot of its layers: {:.0f} MiB are short",
                owner, std::ceil(-room[owner] / kMib));
            return plan;
        }
    }
    for (const auto& [owner, bytes] : owners) {
        if (request.twins.contains(owner)) continue;
        const ReplicaDevice* best = nullptr;
        for (const ReplicaDevice& device : request.devices) {
            if (device.name == owner || room[device.name] < kCopies * bytes) continue;
            if (best == nullptr || room[device.name] > room[best->name]) best = &device;
        }
        if (best == nullptr && request.devices.size() > 1) {
            plan.buddies.clear();
            plan.why_not = fmt::format(
                "no device has memory left for a replica of {}'s layers ({:.0f} MiB twice)", owner,
                std::ceil(bytes / kMib));
            return plan;
        }
        const std::string buddy = best != nullptr ? best->name : kPortalPeer;
        if (best != nullptr) room[buddy] -= kCopies * bytes;
        plan.buddies[owner] = buddy;
    }
    // The interval: what is shipped fits half of what the link is idle, and what is copied takes a
    // small share of the step.
    double every = 1;
    if (request.step_ms > 0) {
        for (const auto& [owner, bytes] : request.state_bytes)
            every = std::max(every, bytes / kCopyBytesPerMs / (kCopyShare * request.step_ms));
        for (const auto& [owner, buddy] : plan.buddies) {
            const double bytes = request.state_bytes.at(owner);
            const auto link = request.links.find({owner, buddy});
            if (link == request.links.end() || link->second.mbps <= 0) continue;
            const double ship_ms = bytes * 8 / (link->second.mbps * 1000);
            const double idle_ms =
                std::max(request.step_ms - link->second.busy_ms, 0.01 * request.step_ms);
            every = std::max(every, ship_ms / (kIdleShare * idle_ms));
        }
    }
    plan.every = static_cast<std::uint64_t>(std::ceil(std::min(every, kEveryMax)));
    plan.state_bytes = request.state_bytes;
    for (const auto& [owner, buddy] : plan.buddies)
        plan.state_bytes[buddy] += request.state_bytes.at(owner);
    const bool fit = std::all_of(request.devices.begin(), request.devices.end(),
                                 [&](const ReplicaDevice& device) {
                                     return plan.bytes_on(device.name) <= device.free_bytes;
                                 });
    if (!fit && plan.every == 1) plan.every = 2;
    return plan;
}

}  // namespace ecopipe
