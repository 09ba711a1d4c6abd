#pragma once
// Where the state of a model lies, which step all can go back to, and who gives what to whom. Pure.
//
// The problem: a device that dies takes the newest state of its layers with it. The portal's
// checkpoint has an older one, maybe of an epoch ago, and all steps since would be computed again.
// So every few steps each stage also leaves its state with a buddy, another device with memory to
// spare. A step of which two processes hold every layer outlives the death of either. How many
// steps are a few follows from what the links have idle and what a copy costs.
//
// Why not each layer's newest state, wherever it is? Less would be replayed, and it would be wrong:
// layers of different steps train on as if nothing were amiss, and their weights are those of no
// run without a failure. docs/decisions/recovery-points.md has what else there was.
//
// "State n" of a layer is what step n starts from: its weights, buffers and moments. States of
// different steps are never combined: a recovery point is one step for all layers.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "domain/layer_range.h"
#include "domain/plan_index.h"

namespace ecopipe {

// Who is known to hold which layers' state of which step. Holders are device processes; the base is
// what the portal can produce by itself: the initial weights, or its newest checkpoint.
class Holdings {
  public:
    explicit Holdings(std::vector<int> stateful_layers) : layers_(std::move(stateful_layers)) {}

    // The base is of this step now; an earlier one is no longer there.
    void set_base(std::uint64_t step) { base_ = step; }
    [[nodiscard]] std::uint64_t base() const { return base_; }
    void stored(const std::string& holder, int first_layer, int last_layer, std::uint64_t step);
    void forget(const std::string& holder);  // its process is gone
    // All go back to `step`: what was stored of later steps belongs to a course that is given up.
    void rewound_to(std::uint64_t step);
    void drop_before(std::uint64_t step);  // holders are told that they may

    [[nodiscard]] bool holds(const std::string& holder, int layer, std::uint64_t step) const;
    [[nodiscard]] std::vector<std::string> holders(int layer, std::uint64_t step) const;
    // The newest step of which every layer is held by `copies` processes at least, or is the base.
    [[nodiscard]] std::uint64_t newest_point(std::size_t copies) const;
    [[nodiscard]] const std::vector<int>& stateful_layers() const { return layers_; }

  private:
    std::vector<int> layers_;
    std::uint64_t base_ = 0;
    std::map<std::uint64_t, std::map<int, std::set<std::string>>> held_;  // step, layer, holders
};

// What each device of a plan must do to get to a state. "@portal" stands for the base.
struct RestorePlan {
    std::uint64_t step = 0;
    std::map<std::string, std::vector<LayerTransfer>> restore;  // by receiver
    std::map<std::string, std::vector<LayerTransfer>> supply;   // by giver, the portal included
};
// Every stateful layer of the plan: kept where its new device holds it already; else given by the
// holder that gives least so far; else from the base. `step` must be a point of the holdings with
// one copy.
[[nodiscard]] RestorePlan plan_restore(const Holdings& holdings, const PlanIndex& plan,
                                       std::uint64_t step);

// How replicas are kept: who keeps whose, and every how many steps they are refreshed. A device
// whose twins hold its layers too keeps snapshots like all, but has no buddy: its twins' are the
// same.
struct ReplicaDevice {
    std::string name;
    double free_bytes = 0;  // what the plan leaves of its memory
};
struct ReplicaPlan {
    std::map<std::string, std::string> buddies;   // by owner
    std::uint64_t every = 0;                      // steps; 0: no replicas
    std::string why_not;                          // when there are none
    std::map<std::string, double> state_bytes{};  // of each device: its own, and those it keeps
    // How many of each state are there at once: while a newer one is under way the one before is
    // kept; and when one is taken every step, also the one that the portal has not yet told to be
    // safe.
    [[nodiscard]] int copies() const { return every == 1 ? 3 : 2; }
    // What they take on a device at most.
    [[nodiscard]] double bytes_on(const std::string& device) const;
    [[nodiscard]] bool keeps(const std::string& device) const;  // somebody's replica
};
struct ReplicaLink {
    double mbps = 0;     // 0: unlimited
    double busy_ms = 0;  // a step, in that direction, with tensors of the plan
};
struct ReplicaRequest {
    std::map<std::string, double> state_bytes;  // by device of the plan
    std::set<std::string> twins;                // of these, those that share all their layers
    std::vector<ReplicaDevice> devices;         // that may keep: of the plan first, then spares
    double step_ms = 0;                         // predicted; 0: unknown
    // From one device to another.
    std::map<std::pair<std::string, std::string>, ReplicaLink> links;
};
// All copies fit what the plan leaves: where three of each do not, every other step is enough.
// Owners with the most state choose first, the device with the most room left. The portal's own
// process is the last resort of an owner that nobody else can serve when only one device is there.
[[nodiscard]] ReplicaPlan place_replicas(const ReplicaRequest& request);

}  // namespace ecopipe
