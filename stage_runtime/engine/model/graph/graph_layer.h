#pragma once
// A graph's nodes as layers: their operators resolved through torch's dispatcher, once. Includes
// torch.

#include <string>

#include "stage_runtime/engine/model/graph/graph_file.h"
#include "stage_runtime/engine/model/layer.h"

namespace ecopipe {

// Weights are uninitialised. Errors: kBadFile naming the node and the operator, when this LibTorch
// has no such operator, or it does not take these arguments.
[[nodiscard]] Result<Layers> graph_layers(const GraphFile& graph);

}  // namespace ecopipe
