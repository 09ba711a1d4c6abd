#pragma once
// Models of the zoo, what they hold, and a few steps of their training, cut in two or whole.

#include <cstdint>
#include <map>
#include <string>

#include "domain/limits.h"
#include "stage_runtime/engine/model/models.h"
#include "stage_runtime/engine/run/executor.h"

namespace ecopipe::test {

[[nodiscard]] ModelSpec zoo(const std::string& name, Shape input, int num_classes = 10);
// Random images (of a shape of one side: token ids of a small vocabulary) and labels of ten
// classes.
[[nodiscard]] Batch random_batch(const ModelSpec& spec, std::int64_t samples, std::uint64_t seed);
// Trainable elements of all layers, or of those whose name begins so.
[[nodiscard]] std::size_t parameters(const ModelSpec& spec, const std::string& layers = "");
[[nodiscard]] std::map<std::string, Shape> shapes_of(const ModelSpec& spec);  // by tensor name
[[nodiscard]] bool same_bytes(const TensorMap& a, const TensorMap& b);
// All layers that a model may have, as one.
inline const Segments kWhole{{0, kLayersMax}};
// The weights after the same steps in one executor and in two, cut after layer `cut` (< 0: not
// cut), some of the layers recomputed.
[[nodiscard]] TensorMap train_cut(const ModelSpec& spec, int cut, const Segments& recomputed,
                                  const OptimizerSpec& optimizer, bool split_backward = false);

}  // namespace ecopipe::test
