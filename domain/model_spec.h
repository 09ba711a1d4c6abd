#pragma once
// Which model, and what the world outside torch may know of it.

#include <string>
#include <vector>

#include "core/host_tensor.h"

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

}  // namespace ecopipe
