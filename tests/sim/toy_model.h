#pragma once
// A model whose every number is a hash: the state of a layer is a chain over (step, micro-batches),
// and what flows between layers depends on their states. A micro-batch applied twice, left out or
// out of order, or states of different steps combined, show in the next state of some layer.

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "core/host_tensor.h"

namespace ecopipe::sim {

inline constexpr int kLayers = 6;
inline constexpr int kStatelessLayer = 2;
inline constexpr int kMicroBatches = 3;
inline const std::vector<int> kStatefulLayers{0, 1, 3, 4, 5};

[[nodiscard]] std::uint64_t mix(std::uint64_t a, std::uint64_t b);
[[nodiscard]] std::uint64_t initial_state(int layer);
[[nodiscard]] std::uint64_t input_of(std::uint64_t step, std::uint32_t micro_batch);
[[nodiscard]] std::uint64_t label_of(std::uint64_t step, std::uint32_t micro_batch);

// A layer's state as tensors: the value, and a second one that belongs to the same step.
[[nodiscard]] TensorMap tensors_of(std::uint64_t state);
// Nothing when the two do not belong together.
[[nodiscard]] const std::uint64_t* state_in(const TensorMap& tensors);
[[nodiscard]] HostTensor tensor_of(std::uint64_t value);

// Some consecutive layers, as an executor holds them.
class ToySlice {
  public:
    ToySlice(int first, int last) : first_(first), last_(last) {}
    [[nodiscard]] int first() const { return first_; }
    [[nodiscard]] int last() const { return last_; }
    void load(int layer, std::uint64_t state) { states_[layer] = state; }
    [[nodiscard]] const std::map<int, std::uint64_t>& states() const { return states_; }
    void begin_step();
    [[nodiscard]] std::uint64_t forward(std::uint32_t micro_batch, std::uint64_t input);
    [[nodiscard]] std::uint64_t backward(std::uint32_t micro_batch, std::uint64_t gradient);
    void commit(std::uint64_t step);

  private:
    int first_;
    int last_;
    std::map<int, std::uint64_t> states_;
    std::map<std::uint32_t, std::map<int, std::uint64_t>> stash_;  // each layer's input
    std::map<int, std::uint64_t> gradients_;
};

// The states of every layer before each step, computed in one process.
[[nodiscard]] std::vector<std::map<int, std::uint64_t>> reference_states(std::uint64_t steps);

}  // namespace ecopipe::sim
