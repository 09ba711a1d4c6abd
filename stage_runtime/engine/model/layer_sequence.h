#pragma once
// A model or a slice of it, loaded. Includes torch: for .cpp files of the model and engine alone.

#include "domain/layer_range.h"
#include "stage_runtime/engine/model/layer.h"
#include "stage_runtime/engine/model/models.h"

namespace ecopipe {

struct LayerSequence {
    Layers layers;   // of the range asked for
    ModelInfo info;  // of the whole model
};

// Layers `range` of the model, or all of them when range is null. A zoo model's weights are
// uninitialised.
[[nodiscard]] Result<LayerSequence> load_layers(const ModelSpec& spec, const LayerRange* range);

}  // namespace ecopipe
