#pragma once
// Moves layers' states between a stage's executors, what it keeps, and other devices. Compute
// thread only.

#include <memory>
#include <string>
#include <vector>

#include "stage_runtime/engine/executor.h"
#include "stage_runtime/state_keeper.h"
#include "transport/data_plane.h"
#include "transport/messages.h"

namespace ecopipe {

using Executors = std::vector<std::unique_ptr<Executor>>;  // one a slice

class StateExchange {
  public:
    explicit StateExchange(DataPlane& data) : data_(data) {}

    [[nodiscard]] StateKeeper& keeper() { return keeper_; }
    // Copies of every layer of the executors become the kept state of `step`. The layers that have
    // state, in order.
    std::vector<int> keep(std::uint64_t step, const Executors& executors);
    // From what is kept into the executor that has the layer. Errors: kRunFailed when it is not
    // kept, kBadFile when it is not of this model.
    [[nodiscard]] Result<void> load(std::uint64_t step, int layer, const Executors& executors);
    // Sends kept layers; those without state are passed over.
    void send(const std::string& to, TensorKind kind, std::uint32_t generation, std::uint64_t step,
              int first_layer, int last_layer);
    // A state tensor that arrived. True when its layer is whole now.
    [[nodiscard]] bool arrived(Delivery delivery);

  private:
    DataPlane& data_;
    StateKeeper keeper_;
};

}  // namespace ecopipe
