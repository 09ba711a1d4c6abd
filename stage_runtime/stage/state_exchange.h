#pragma once
// Moves layers' states between what a stage computes with, what it keeps, and other devices. One
// thread.

#include <string>
#include <vector>

#include "stage_runtime/stage/stage_compute.h"
#include "stage_runtime/stage/state_keeper.h"
#include "transport/data/tensor_channels.h"

namespace ecopipe {

// All tensors of one layer's state, each with its place among them.
void send_layer(TensorChannels& channels, const std::string& to, TensorKind kind,
                std::uint32_t generation, std::uint64_t step, int layer, const TensorMap& tensors);

class StateExchange {
  public:
    StateExchange(StageCompute& compute, TensorChannels& channels)
        : compute_(compute), channels_(channels) {}

    [[nodiscard]] StateKeeper& keeper() { return keeper_; }
    // Copies of every layer that is computed here become the kept state of `step`. The layers that
    // have state, in order.
    std::vector<int> keep(std::uint64_t step);
    // From what is kept into the slice that has the layer. Errors: kRunFailed when it is not kept,
    // kBadFile when it is not of this model.
    [[nodiscard]] Result<void> load(std::uint64_t step, int layer);
    // Sends kept layers; those without state are passed over.
    void send(const std::string& to, TensorKind kind, std::uint32_t generation, std::uint64_t step,
              int first_layer, int last_layer);
    // A state tensor that arrived. True when its layer is whole now.
    [[nodiscard]] bool arrived(Delivery delivery);

  private:
    StageCompute& compute_;
    TensorChannels& channels_;
    StateKeeper keeper_;
};

}  // namespace ecopipe
