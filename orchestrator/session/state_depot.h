#pragma once
// The states that the portal itself has: the base, which it can always give, replicas that it keeps
// for a lone device, and what is on its way to a checkpoint. Pure; one thread.

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "core/result.h"
#include "domain/model_spec.h"
#include "domain/optimizer_spec.h"
#include "stage_runtime/stage/state_keeper.h"

namespace ecopipe {

class StateDepot {
  public:
    void set_model(ModelInfo info, const OptimizerSpec& optimizer);
    [[nodiscard]] const ModelInfo& model() const { return info_; }
    // What a layer's state takes, moments included; of those that have any.
    [[nodiscard]] const std::map<int, double>& layer_bytes() const { return layer_bytes_; }

    // Errors: kBadFile for a tensor that is not of the model.
    [[nodiscard]] Result<void> set_base(const TensorMap& state, std::uint64_t step);
    [[nodiscard]] StateKeeper& replicas() { return replicas_; }
    // What there is of a layer at that step, or nothing.
    [[nodiscard]] const TensorMap* find(std::uint64_t step, int layer) const;

    // A collection begins; its tensors come in any order, as many as `expect` says.
    void collect();
    void collected(NamedTensor tensor);
    void expect(std::uint32_t tensors) { expected_ = tensors; }
    [[nodiscard]] bool complete() const { return expected_ && fetched_.size() >= *expected_; }
    [[nodiscard]] bool collecting() const { return collecting_ && !complete(); }
    void give_up_collecting() { collecting_ = false; }
    [[nodiscard]] TensorMap take_collected();  // in the model's order

  private:
    ModelInfo info_;
    std::map<int, double> layer_bytes_;
    std::map<int, TensorMap> base_;
    std::uint64_t base_step_ = 0;
    StateKeeper replicas_;
    std::optional<std::uint32_t> expected_;
    TensorMap fetched_;
    bool collecting_ = false;
};

}  // namespace ecopipe
