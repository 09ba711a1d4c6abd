#pragma once
// Which model, and what the world outside torch may know of it.

#include <string>
#include <vector>

#include "core/host_tensor.h"
#include "core/result.h"
#include "domain/value_graph.h"

namespace ecopipe {

struct ModelSpec {
    // One of the three says which.
    std::string zoo;               // "lenet5", ...
    std::string torchscript_path;  // its file
    std::string graph;             // graph.json, whole

    std::string graph_directory;  // where a graph came from, with its weights; "" at a stage
    std::string sha256;           // of the TorchScript file or the graph
    int num_classes = 10;
    Shape input_shape;                // one sample, without the batch dimension
    std::vector<std::string> freeze;  // patterns (core/glob.h) of parameters that are not trained
    // Batch norms of which nothing is trained use, and leave, their stored statistics in training.
    bool frozen_norm_evaluates = false;

    // How plans and profiles name the model: the zoo name, or "sha256:" and the file's hash.
    [[nodiscard]] std::string id() const { return zoo.empty() ? "sha256:" + sha256 : zoo; }
};

inline constexpr const char* kFrozenNormHelp =
    "eval: batch norms whose parameters are frozen use, and leave, their stored statistics; train: "
    "as all others";
// A --frozen-norm flag's value. Errors: kUsage.
[[nodiscard]] Result<bool> parse_frozen_norm(const std::string& text);

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

// What a model that is a graph takes.
struct ModelInput {
    std::string name;
    DType dtype = DType::kF32;
    Shape shape;  // one sample
};

struct LayerInfo {
    std::string name;
    std::string kind;
    bool joined_to_previous = false;  // shares a storage with an earlier layer: no cut in between
    std::string fixed_mode{};         // what stays in one mode, training or evaluation; or ""
    bool one_holder = false;          // changes buffers by itself: several devices cannot hold it
};

struct ModelInfo {
    std::vector<LayerInfo> layers;
    ValueGraph flow;                  // what they hand one another
    std::vector<TensorInfo> tensors;  // in layer order
    int first_trainable_layer =
        0;                   // nothing left of it runs backward; layers.size() if none is trainable
    int input_channels = 0;  // of the first convolution; 0: there is none
    std::vector<ModelInput> inputs{};  // of a graph; empty: whatever one there is
};

}  // namespace ecopipe
