#pragma once
// The safetensors format (Hugging Face, v0.4): an 8-byte header length, a JSON header, raw
// little-endian tensors.

#include <string>

#include "core/host_tensor.h"
#include "core/result.h"
#include "domain/model_spec.h"

namespace ecopipe {

inline constexpr std::size_t kSafetensorsHeaderMax = 16U << 20;
inline constexpr std::size_t kSafetensorsBytesMax = 16ULL << 30;

// Tensors in file order. Refuses overlaps, holes, sizes that do not match shape and dtype, unknown
// dtypes, duplicate names. Errors: kBadFile with the file and the tensor.
[[nodiscard]] Result<TensorMap> parse_safetensors(std::string_view bytes,
                                                  const std::string& source);
[[nodiscard]] Result<TensorMap> read_safetensors(const std::string& path);

// Puts the tensors of a file in place of a model's own: the same names and shapes, none missing,
// none too many. Floating-point tensors of another precision are converted, which is logged once;
// a tensor with several names may stand under any of them. Names that a pattern of `except` matches
// stay as they are, whether the file has them or not. Errors: kBadFile; kUsage for a pattern that
// matches no tensor of the model.
[[nodiscard]] Result<void> adopt_weights(const TensorMap& given, const std::string& source,
                                         const std::vector<std::string>& except,
                                         const ModelInfo& info, TensorMap& weights);

// The bytes depend on the tensors alone: names and order are kept, nothing else is written. Atomic.
[[nodiscard]] Result<void> write_safetensors(const std::string& path, const TensorMap& tensors);

}  // namespace ecopipe
