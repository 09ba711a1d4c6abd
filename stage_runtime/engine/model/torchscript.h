#pragma once
// Models that were written in Python: a scripted or traced nn.Sequential. TorchScript is code: load
// only files you trust. Includes torch.

#include "stage_runtime/engine/model/layer.h"
#include "stage_runtime/engine/model/models.h"

namespace ecopipe {

// The layers of the file, one a child of the top Sequential, sharing the file's tensors. Errors:
// kBadFile when the file cannot be read or its top module is no Sequential.
[[nodiscard]] Result<Layers> load_torchscript(const std::string& path);

}  // namespace ecopipe
