#pragma once
// Tensors that have arrived at a stage and wait: for their action, or for the configuration that
// they belong to. Bounded (stage_runtime/stage/limits.h), whatever the peers send. One thread.

#include <cstddef>
#include <map>
#include <optional>
#include <vector>

#include "transport/data/data_plane.h"

namespace ecopipe {

class WaitingTensors {
  public:
    // False, and nothing has changed, when one of this address waits for its action already, or
    // the bounds are reached.
    [[nodiscard]] bool keep(Delivery& delivery);
    // One of a configuration that this stage has not been given yet.
    [[nodiscard]] bool keep_early(Delivery& delivery);

    // Those of `keep_early`, in the order they came; they wait no more.
    [[nodiscard]] std::vector<Delivery> take_early();
    // One of `keep`; it waits no more. Nothing when there is none.
    [[nodiscard]] std::optional<Delivery> take(const TensorAddress& address);
    void clear();

  private:
    [[nodiscard]] bool fits(const Delivery& delivery) const;

    std::map<TensorAddress, Delivery> waiting_;
    std::vector<Delivery> early_;
    std::size_t bytes_ = 0;  // of both
    std::size_t early_bytes_ = 0;
};

}  // namespace ecopipe
