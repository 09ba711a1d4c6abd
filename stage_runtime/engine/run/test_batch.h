#pragma once
// How many samples are tested at a time.

#include "stage_runtime/data/dataset.h"
#include "stage_runtime/engine/model/models.h"

namespace ecopipe {

inline constexpr int kTestBatchMax = 100;
// What the largest input or output of a layer takes with a whole test batch: half of what a data
// channel lets under way, so that a pipeline's stages overlap, and little beside a device's memory.
inline constexpr std::size_t kTestTensorBytes = 4U << 20;

// As many as keep every layer's tensors within kTestTensorBytes, 1 to kTestBatchMax: of the model
// and the shape of its samples alone, so that one process, every pipeline and a federation's server
// sum the same losses in the same parts, whatever the batches that they train on. Runs one sample
// through the model. Errors: kUsage when the model does not take it.
[[nodiscard]] Result<int> test_batch(const ModelSpec& spec, const Dataset& data);

}  // namespace ecopipe
