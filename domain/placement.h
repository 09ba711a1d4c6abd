#pragma once
// Which device holds which stages, in plain numbers: stages in layer order, devices in the order of
// their first stage. A device's stages, in layer order, are its slices.

#include <cstddef>
#include <vector>

namespace ecopipe {

class Placement {
  public:
    Placement() = default;
    // Devices take turns: stage k is slice k / devices of device k % devices. `slices` each.
    [[nodiscard]] static Placement cyclic(int devices, int slices = 1);
    // There and back: 0, 1, 2, 2, 1, 0. Two slices each, the first and the last stage on one device
    // (Qi et al., "Pipeline Parallelism with Controllable Memory", 2024).
    [[nodiscard]] static Placement folded(int devices);
    // Any: element k is the device of stage k. Devices are numbered as they come.
    [[nodiscard]] static Placement of(const std::vector<int>& devices);

    [[nodiscard]] int devices() const { return devices_; }
    [[nodiscard]] int stages() const { return stages_; }
    [[nodiscard]] int device(int stage) const {
        return device_.empty() ? stage % devices_ : device_[static_cast<std::size_t>(stage)];
    }
    [[nodiscard]] int slice(int stage) const {
        return device_.empty() ? stage / devices_ : slice_[static_cast<std::size_t>(stage)];
    }
    [[nodiscard]] int slices(int device) const {
        return device_.empty() ? stages_ / devices_
                               : static_cast<int>(held_[static_cast<std::size_t>(device)].size());
    }
    [[nodiscard]] int stage(int device, int slice) const {
        return device_.empty()
                   ? slice * devices_ + device
                   : held_[static_cast<std::size_t>(device)][static_cast<std::size_t>(slice)];
    }
    // Every device has one stage.
    [[nodiscard]] bool one_each() const { return stages_ == devices_; }
    [[nodiscard]] bool is_cyclic() const { return device_.empty(); }
    friend bool operator==(const Placement&, const Placement&) = default;

  private:
    int devices_ = 0;
    int stages_ = 0;
    // Of a cyclic one, which takes no memory, nothing.
    std::vector<int> device_;             // of each stage
    std::vector<int> slice_;              // of each stage
    std::vector<std::vector<int>> held_;  // the stages of each device
};

}  // namespace ecopipe
