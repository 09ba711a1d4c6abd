#pragma once
// Who has what of a plan, and who comes before and after whom: the one place that knows how stages,
// devices and values hang together. Today a stage is one device's and its value goes to the next
// stage alone; who asks here need not know.

#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "domain/ids.h"
#include "domain/layer_range.h"
#include "domain/plan.h"

namespace ecopipe {

class PlanIndex {
  public:
    PlanIndex() = default;  // of no plan: nobody has anything
    explicit PlanIndex(const Plan& plan);

    // All devices, in the order of their first stage.
    [[nodiscard]] const std::vector<std::string>& devices() const& { return devices_; }
    [[nodiscard]] std::vector<std::string> devices() && { return std::move(devices_); }
    [[nodiscard]] bool has(const std::string& device) const { return slices_.contains(device); }
    // Its place in devices().
    [[nodiscard]] std::optional<std::size_t> place(const std::string& device) const;

    [[nodiscard]] std::size_t stage_count() const { return stages_.size(); }
    // The device's stages in layer order: element i is its slice i. None for a stranger.
    [[nodiscard]] std::span<const StageId> stages_of(const std::string& device) const;
    // Who runs the stage.
    [[nodiscard]] std::span<const std::string> devices_of(StageId stage) const {
        return stages_.at(stage.index()).devices;
    }
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
    // Those that take the inputs, and the labels.
    [[nodiscard]] const std::vector<std::string>& input_devices() const { return input_devices_; }
    [[nodiscard]] const std::vector<std::string>& label_devices() const { return label_devices_; }
    // The devices that this one exchanges tensors with, itself not among them, in layer order.
    [[nodiscard]] std::vector<std::string> neighbours_of(const std::string& device) const;

  private:
    struct Stage {
        std::vector<std::string> devices;
        LayerRange layers;
        std::vector<StageId> producers;
        std::vector<StageId> consumers;
    };
    std::vector<Stage> stages_;
    std::vector<std::string> devices_;
    std::vector<std::string> input_devices_;
    std::vector<std::string> label_devices_;
    std::map<std::string, std::vector<StageId>> slices_;
};

}  // namespace ecopipe
