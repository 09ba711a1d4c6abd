#pragma once
// The names of a training's state: a weight or buffer goes by its state-dict name, an optimiser's
// slot by optimizer/SLOT/NAME, the residual of a compressed gradient by codec/LAYER/INPUT.

#include <map>
#include <optional>
#include <string>

#include "core/host_tensor.h"
#include "domain/model_spec.h"

namespace ecopipe {

class StateNames {
  public:
    explicit StateNames(const ModelInfo& info);
    // The layer that the tensor belongs to and moves with; nothing for a name that is not of this
    // model.
    [[nodiscard]] std::optional<int> layer_of(const std::string& name) const;
    // The model's order: weights and buffers, then moments, then residuals. Who held what does not
    // show.
    void sort(TensorMap& state) const;

  private:
    struct Place {
        int layer = 0;
        std::size_t rank = 0;  // in the model
    };
    std::map<std::string, Place> places_;
    int layers_ = 0;
};

}  // namespace ecopipe
