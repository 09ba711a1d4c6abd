#pragma once
// tensors:DIR: {train,val,test}.safetensors, each with `inputs` [n, ...], or for a model that takes
// several `inputs.NAME` for each, and `targets` [n, ...].

#include "stage_runtime/data/dataset.h"

namespace ecopipe {

// Targets that equal `ignored` are no classes (PyTorch's ignore_index).
// Inputs are F32, I64 or I32 (such as tokens), or U8 (pixels, scaled to [0, 1]). Targets are I64,
// I32 or U8: classes from 0; or F32: numbers. Errors: kBadFile naming the file and the tensor.
[[nodiscard]] Result<DataSplits> open_tensors(const std::string& directory,
                                              std::optional<std::int64_t> ignored);

}  // namespace ecopipe
