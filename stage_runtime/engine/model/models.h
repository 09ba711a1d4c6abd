#pragma once
// The models that there are, without torch in their headers: found, looked into, tried, saved.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/host_tensor.h"
#include "core/result.h"
#include "domain/loss.h"
#include "domain/model_spec.h"
#include "stage_runtime/data/dataset.h"

namespace ecopipe {

inline constexpr std::size_t kModelFileBytesMax = 8ULL << 30;  // of a TorchScript file

// A zoo name or the path of a TorchScript file, as --model gives it. Errors: kUsage for a name that
// is neither.
[[nodiscard]] Result<ModelSpec> find_model(const std::string& name_or_path);
[[nodiscard]] std::vector<std::string> zoo_names();

// The structure of a model without keeping its weights. Errors: kBadFile for a TorchScript file
// that cannot be used, kUsage for a `freeze` pattern that is no parameter's or that leaves none.
[[nodiscard]] Result<ModelInfo> inspect_model(const ModelSpec& spec);

// Image channels that the model needs, 0 when any number will do; known before the data are.
[[nodiscard]] int required_channels(const ModelSpec& spec);

// The weights that training starts from: a zoo model's are drawn by (seed, tensor name), a
// TorchScript file's are its own.
[[nodiscard]] Result<TensorMap> initial_weights(const ModelSpec& spec, std::uint64_t seed);

// Errors: kUsage when the model has nothing that training could change.
[[nodiscard]] Result<void> expect_trainable(const ModelInfo& info, const ModelSpec& spec);

// Runs one training-mode forward pass of samples of the given kind through the whole
// model and the loss, layer by layer, so that a model that does not fit its data, or a micro-batch
// too small for batch norm, is refused before training, naming the layer and the remedy.
[[nodiscard]] Result<void> try_model(const ModelSpec& spec, const LossSpec& loss,
                                     const Batch& samples);

// The bytes of the largest tensor that crosses a layer boundary when these inputs are tested,
// themselves included. Errors: kUsage naming the layer that cannot take them.
[[nodiscard]] Result<std::size_t> largest_tensor_bytes(const ModelSpec& spec, const Batch& samples);

// Writes the TorchScript file at `path` again with these weights in it.
[[nodiscard]] Result<void> save_torchscript(const ModelSpec& spec, const TensorMap& weights,
                                            const std::string& path);

}  // namespace ecopipe
