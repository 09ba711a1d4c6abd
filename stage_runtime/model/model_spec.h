#pragma once
// Which model, and what the world outside torch may know of it.

#include <cstdint>
#include <string>
#include <vector>

#include "core/host_tensor.h"
#include "core/result.h"
#include "transport/messages.h"

namespace ecopipe {

struct ModelSpec {
    std::string zoo;               // "lenet5", ...; "" for a TorchScript file
    std::string torchscript_path;  // "" for a zoo model
    std::string sha256;            // of the file
    int num_classes = 10;
    Shape input_shape;                // one sample, without the batch dimension
    std::vector<std::string> freeze;  // patterns (core/glob.h) of parameters that are not trained

    // How plans and profiles name the model: the zoo name, or "sha256:" and the file's hash.
    [[nodiscard]] std::string id() const { return zoo.empty() ? "sha256:" + sha256 : zoo; }
};

// Layers [first, last] of a model.
struct LayerRange {
    int first = 0;
    int last = 0;
};

struct TensorInfo {
    std::string name;  // the model's state-dict name in PyTorch
    DType dtype = DType::kF32;
    Shape shape;
    int layer = 0;
    bool trainable = false;  // a parameter that the optimiser updates
    bool buffer = false;     // state that forward passes change, such as running means
    // The first name of the same tensor when the model has it under several (tied weights): it has
    // one gradient, one optimiser slot and one place in memory, and is saved under every name.
    std::string same_as{};
};

struct LayerInfo {
    std::string name;
    std::string kind;
    bool joined_to_previous = false;  // shares a storage with an earlier layer: no cut in between
    std::string fixed_mode{};         // what stays in one mode, training or evaluation; or ""
};

struct ModelInfo {
    std::vector<LayerInfo> layers;
    std::vector<TensorInfo> tensors;  // in layer order
    int first_trainable_layer =
        0;                   // nothing left of it runs backward; layers.size() if none is trainable
    int input_channels = 0;  // of the first convolution; 0: there is none
};

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

// Runs one training-mode forward pass of `samples` samples of the given kind through the whole
// model and the loss, layer by layer, so that a model that does not fit its data, or a micro-batch
// too small for batch norm, is refused before training, naming the layer and the remedy.
[[nodiscard]] Result<void> try_model(const ModelSpec& spec, const LossSpec& loss,
                                     const HostTensor& inputs, const HostTensor& labels);

// The bytes of the largest tensor that crosses a layer boundary when these inputs are tested,
// themselves included. Errors: kUsage naming the layer that cannot take them.
[[nodiscard]] Result<std::size_t> largest_tensor_bytes(const ModelSpec& spec,
                                                       const HostTensor& inputs);

// Writes the TorchScript file at `path` again with these weights in it.
[[nodiscard]] Result<void> save_torchscript(const ModelSpec& spec, const TensorMap& weights,
                                            const std::string& path);

}  // namespace ecopipe
