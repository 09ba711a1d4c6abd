#pragma once
// Who has what of a plan, and which way values and gradients go between stages: the one place that
// knows how stages, devices and values hang together.

#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "domain/ids.h"
#include "domain/layer_range.h"
#include "domain/plan.h"
#include "domain/sum_blocks.h"
#include "domain/value_graph.h"

namespace ecopipe {

// A value's or its gradient's way between two stages. What the model takes comes from no stage.
struct ValueWay {
    int value = 0;  // of the model's ValueGraph
    std::optional<StageId> stage;
};

// A stage that uses a value, and how many of its users it has.
struct ValueUser {
    int stage = 0;
    int users = 0;
};
// Where the gradient that `users[i]` has of a value of stage `producer` goes. `users`: the stages
// that use it, but for its producer's own, in layer order.
[[nodiscard]] int gradient_receiver(std::span<const ValueUser> users, std::size_t i, int producer);

// All ways of one stage. A value goes from the stage that makes it straight to each that uses it.
// Its gradient is the sum of its users', the last user's first: so that the sum is the same however
// the model is cut, a stage that has several of the users takes what those behind it found and adds
// its own, and what it then has goes on in its stead; any other sends its own straight back.
struct StageWays {
    std::vector<ValueWay> arriving;   // in the order of ValueGraph::entering
    std::vector<ValueWay> departing;  // one a value and stage that takes it, in order
    std::vector<ValueWay> returning;  // gradients that come, in the order in which they are added
    std::vector<ValueWay> returned;   // of the arriving values that have one, and to whom
};

// A tied tensor whose home and user are on two stages: once a step the user's gradient goes home,
// and the updated weight comes back.
struct TieWay {
    TiedUse use;
    StageId home;
    StageId user;
};

class PlanIndex {
  public:
    PlanIndex() = default;  // of no plan: nobody has anything
    // Without `flow` the model is taken for a chain that is trained from its first layer on.
    explicit PlanIndex(const Plan& plan, const ValueGraph& flow = {});

    // All devices, in the order of their first stage.
    [[nodiscard]] const std::vector<std::string>& devices() const& { return devices_; }
    [[nodiscard]] std::vector<std::string> devices() && { return std::move(devices_); }
    [[nodiscard]] bool has(const std::string& device) const { return slices_.contains(device); }
    // Its place in devices().
    [[nodiscard]] std::optional<std::size_t> place(const std::string& device) const;

    [[nodiscard]] std::size_t stage_count() const { return stages_.size(); }
    // The device's stages in layer order: element i is its slice i. None for a stranger.
    [[nodiscard]] std::span<const StageId> stages_of(const std::string& device) const;
    // Who holds the stage.
    [[nodiscard]] std::span<const std::string> devices_of(StageId stage) const {
        return stages_.at(stage.index()).devices;
    }
    // Who of them runs a micro-batch, of a step or of an evaluation.
    [[nodiscard]] const std::string& owner_of(StageId stage, std::uint32_t micro_batch) const {
        const Stage& of = stages_.at(stage.index());
        return of.devices[of.owner[static_cast<std::size_t>(tree_.block_of(micro_batch))]];
    }
    // For each sum block, whether the device owns it in this stage.
    [[nodiscard]] std::vector<bool> blocks_of(StageId stage, const std::string& device) const;
    [[nodiscard]] const SumTree& sum_tree() const { return tree_; }
    [[nodiscard]] LayerRange layers_of(StageId stage) const {
        return stages_.at(stage.index()).layers;
    }
    // Nothing for a layer that is not of the plan.
    [[nodiscard]] std::optional<StageId> stage_of(int layer) const;
    // Who has the layer's state.
    [[nodiscard]] std::span<const std::string> holders_of(int layer) const;
    [[nodiscard]] bool holds(const std::string& device, int layer) const;

    // The stages whose values `stage` takes, and those that take its value. A stage without
    // producers takes the batch's inputs, one without consumers its labels.
    [[nodiscard]] std::span<const StageId> producers_of(StageId stage) const {
        return stages_.at(stage.index()).producers;
    }
    [[nodiscard]] std::span<const StageId> consumers_of(StageId stage) const {
        return stages_.at(stage.index()).consumers;
    }
    [[nodiscard]] const StageWays& ways_of(StageId stage) const {
        return stages_.at(stage.index()).ways;
    }
    [[nodiscard]] const std::vector<TieWay>& ties() const { return ties_; }
    // Those that take one of the model's inputs of a micro-batch, and the one that takes its
    // labels.
    [[nodiscard]] std::vector<std::string> input_devices(std::uint32_t micro_batch,
                                                         std::size_t input = 0) const;
    [[nodiscard]] const std::string& label_device(std::uint32_t micro_batch) const {
        return owner_of(StageId{static_cast<std::uint32_t>(stages_.size() - 1)}, micro_batch);
    }
    // The devices that this one exchanges tensors with, itself not among them, in layer order.
    [[nodiscard]] std::vector<std::string> neighbours_of(const std::string& device) const;

  private:
    struct Stage {
        std::vector<std::string> devices;
        std::vector<std::size_t> owner;  // of each sum block, into devices
        LayerRange layers;
        std::vector<StageId> producers;
        std::vector<StageId> consumers;
        StageWays ways;
    };
    void find_ways(const ValueGraph& flow);
    void find_way(const ValueGraph& flow, int value);
    std::vector<Stage> stages_;
    std::vector<std::string> devices_;
    std::vector<std::vector<StageId>> input_stages_;  // that take each of the model's inputs
    SumTree tree_;
    std::map<std::string, std::vector<StageId>> slices_;
    std::vector<TieWay> ties_;
};

}  // namespace ecopipe
