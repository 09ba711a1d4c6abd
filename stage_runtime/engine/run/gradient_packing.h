#pragma once
// One layer's gradients as one tensor, for another device that holds the layer too. Includes torch.

#include "core/result.h"
#include "domain/layer_gradient.h"
#include "stage_runtime/engine/model/layer.h"

namespace ecopipe {

// `gradients`: one for each of `parameters`, of the same shape; undefined where there is none.
[[nodiscard]] LayerGradient pack_gradient(const Tensors& gradients, const Tensors& parameters);
// In the memory of `gradient`, where that is F32. Errors: kRunFailed for one that is not of these
// parameters.
[[nodiscard]] Result<Tensors> unpack_gradient(const LayerGradient& gradient,
                                              const Tensors& parameters);

}  // namespace ecopipe
