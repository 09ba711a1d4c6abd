#pragma once
// The states of layers that a process keeps: its own snapshots and other devices' replicas, by step
// and layer. Pure; the tensors' memory is shared, not copied.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/host_tensor.h"

namespace ecopipe {

class StateKeeper {
  public:
    // A whole layer's state before step `step`; replaces what was there.
    void put(std::uint64_t step, int layer, TensorMap tensors);
    // One of `count` tensors of a layer. True when the layer has just become whole.
    [[nodiscard]] bool add(std::uint64_t step, int layer, std::size_t index, std::size_t count,
                           NamedTensor tensor);
    // A whole layer's state, or nothing.
    [[nodiscard]] const TensorMap* find(std::uint64_t step, int layer) const;

    void drop_before(std::uint64_t step);  // a newer recovery point is in force
    // All go back to `step`: later states, and what had not become whole, are forgotten.
    void rewind_to(std::uint64_t step);
    void clear() { states_.clear(); }
    [[nodiscard]] std::size_t bytes() const;

  private:
    struct Entry {
        TensorMap tensors;
        std::size_t missing = 0;
    };
    std::map<std::uint64_t, std::map<int, Entry>> states_;
};

}  // namespace ecopipe
