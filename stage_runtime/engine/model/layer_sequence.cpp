#include "stage_runtime/engine/model/layer_sequence.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "core/files.h"
#include "core/glob.h"
#include "core/log.h"
#include "stage_runtime/data/safetensors.h"
#include "stage_runtime/engine/model/graph/graph_file.h"
#include "stage_runtime/engine/model/graph/graph_layer.h"
#include "stage_runtime/engine/model/loss.h"
#include "stage_runtime/engine/model/losses/make_loss.h"
#include "stage_runtime/engine/model/tensor_bridge.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/model/torch_error.h"
#include "stage_runtime/engine/model/torchscript.h"
#include "stage_runtime/engine/model/value_table.h"
#include "stage_runtime/engine/model/zoo/modules.h"

namespace ecopipe {
namespace {

constexpr const char* kGraphFile = "graph.json";
constexpr const char* kGraphWeights = "weights.safetensors";

// What a model of the zoo takes as one sample.
struct ZooInput {
    std::int64_t channels = 0;    // of an image; 0: any
    std::int64_t side_min = 0;    // an image's smallest height and width
    std::int64_t tokens_max = 0;  // > 0: no image but token ids, at most so many
};
constexpr ZooInput images(std::int64_t channels, std::int64_t side_min) {
    return {channels, side_min, 0};
}
constexpr ZooInput tokens(std::int64_t most) { return {0, 0, most}; }

struct ZooEntry {
    const char* name;
    Layers (*build)(const std::vector<std::int64_t>& input, int num_classes);
    ZooInput input;
};
constexpr std::array<ZooEntry, 8> kZoo{
    {{"lenet5", zoo::lenet5, images(0, 12)},
     {"fashion_cnn", zoo::fashion_cnn, images(0, 6)},
     {"plain_cnn", zoo::plain_cnn, images(3, 1)},
     {"mobilenet_v2", zoo::mobilenet_v2, images(3, 1)},
     {"efficientnet_b0", zoo::efficientnet_b0, images(3, 1)},
     {"shufflenet_v2_x1_0", zoo::shufflenet_v2_x1_0, images(3, 1)},
     {"shufflenet_v1_g3", zoo::shufflenet_v1_g3, images(3, 1)},
     {"mobilebert", zoo::mobilebert, tokens(512)}}};

Result<void> expect_input(const ZooEntry& model, const Shape& found) {
    const ZooInput& wanted = model.input;
    if (wanted.tokens_max > 0) {
        if (found.size() == 1 && found[0] >= 1 && found[0] <= wanted.tokens_max) return {};
        return fail(ExitCode::kBadFile,
                    fmt::format("model {}: expected 1 to {} token ids a sample, found shape {}",
                                model.name, wanted.tokens_max, shape_text(found)));
    }
    const bool channels =
        found.size() == 3 && (wanted.channels == 0 || found[0] == wanted.channels);
    if (channels && found[1] >= wanted.side_min && found[2] >= wanted.side_min) return {};
    return fail(
        ExitCode::kBadFile,
        fmt::format("model {}: expected images of {} channels, at least {}x{}, found shape {}",
                    model.name, wanted.channels == 0 ? "any" : std::to_string(wanted.channels),
                    wanted.side_min, wanted.side_min, shape_text(found)));
}

Result<Layers> build_zoo_model(const ModelSpec& spec) {
    for (const ZooEntry& entry : kZoo) {
        if (spec.zoo != entry.name) continue;
        ECOPIPE_RETURN_IF_ERROR(expect_input(entry, spec.input_shape));
        return entry.build(spec.input_shape, spec.num_classes);
    }
    return fail(ExitCode::kUsage, fmt::format("model '{}' is not in the zoo", printable(spec.zoo)));
}

// Layers between two that share a storage are joined to the previous one: no cut separates the two.
void mark_joined(const Layers& layers, ModelInfo& info) {
    std::map<const void*, int> first_layer_of;
    for (std::size_t i = 0; i < layers.size(); ++i) {
        for (const LayerTensor& tensor : layers[i]->tensors) {
            if (tensor.tensor.numel() == 0 || !tensor.tensor.has_storage() || tensor.lent) continue;
            const auto [it, fresh] =
                first_layer_of.emplace(tensor.tensor.storage().data(), static_cast<int>(i));
            if (fresh) continue;
            for (int j = it->second + 1; j <= static_cast<int>(i); ++j)
                info.layers[static_cast<std::size_t>(j)].joined_to_previous = true;
        }
    }
}

ValueGraph flow_of(const Layers& layers, const GraphFile* graph) {
    std::vector<bool> trainable;
    for (const auto& layer : layers) trainable.push_back(!distinct_trainable(*layer).empty());
    if (graph == nullptr) return ValueGraph::chain(trainable);
    ValueGraph flow(graph->model_values(), graph->arguments(), std::move(trainable));
    std::map<std::string, int> homes;
    std::vector<TiedUse> ties;
    for (std::size_t i = 0; i < layers.size(); ++i)
        for (const LayerTensor& tensor : layers[i]->tensors) {
            const int layer = static_cast<int>(i);
            if (tensor.lent)
                ties.push_back({tensor.name, homes.at(tensor.name), layer, tensor.trainable});
            else
                homes.emplace(tensor.name, layer);
        }
    flow.set_ties(std::move(ties));
    return flow;
}

Result<ModelInfo> describe(const Layers& layers, const GraphFile* graph) {
    ModelInfo info;
    info.flow = flow_of(layers, graph);
    info.first_trainable_layer = static_cast<int>(layers.size());
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const Layer& layer = *layers[i];
        const int index = static_cast<int>(i);
        info.layers.push_back({layer.name, layer.kind, false, layer.fixed_mode, layer.one_holder});
        for (const LayerTensor& tensor : layer.tensors) {
            if (tensor.trainable)
                info.first_trainable_layer = std::min(info.first_trainable_layer, index);
            if (tensor.lent) continue;
            const auto dtype = dtype_of(tensor.tensor);
            if (!dtype)
                return fail(ExitCode::kBadFile,
                            fmt::format("tensor {}: {} is no element type that ecopipe knows",
                                        tensor.name, c10::toString(tensor.tensor.scalar_type())));
            Shape shape = tensor.tensor.sizes().vec();
            const bool channels = info.input_channels == 0 && shape.size() == 4;
            if (channels) info.input_channels = static_cast<int>(shape[1]);
            info.tensors.push_back({tensor.name, *dtype, std::move(shape), index, tensor.trainable,
                                    tensor.buffer, tensor.same_as});
        }
    }
    mark_joined(layers, info);
    if (graph == nullptr) return info;
    for (int i = 0; i < graph->inputs; ++i) {
        const GraphValue& value = graph->values[static_cast<std::size_t>(i)];
        ModelInput input{value.name, value.dtype, {}};
        for (std::size_t d = 1; d < value.shape.size(); ++d)
            input.shape.push_back(value.shape[d].number);
        info.inputs.push_back(std::move(input));
    }
    const Shape& first = info.inputs.front().shape;
    info.input_channels = first.size() == 3 ? static_cast<int>(first[0]) : 0;
    return info;
}

// Parameters that a pattern names are not trained, as if requires_grad were off in Python; one with
// several names goes by any of them.
Result<void> freeze_layers(const Layers& layers, const std::vector<std::string>& patterns) {
    if (patterns.empty()) return {};
    std::set<std::string> unused(patterns.begin(), patterns.end());
    std::set<std::string> frozen;  // first names
    std::string first;
    for (const auto& layer : layers)
        for (const LayerTensor& tensor : layer->tensors) {
            if (tensor.buffer) continue;
            if (first.empty()) first = tensor.name;
            std::erase_if(unused, [&](const auto& p) { return matches_any({p}, tensor.name); });
            if (matches_any(patterns, tensor.name)) frozen.insert(tensor.first_name());
        }
    bool some_left = false;
    for (const auto& layer : layers)
        for (LayerTensor& tensor : layer->tensors) {
            if (tensor.trainable && frozen.contains(tensor.first_name())) {
                tensor.tensor.requires_grad_(false);
                tensor.trainable = false;
            }
            some_left = some_left || tensor.trainable;
        }
    if (!unused.empty())
        return fail(ExitCode::kUsage,
                    fmt::format("--freeze: {} is no parameter of the model; its first is {}",
                                printable(*unused.begin()), first));
    if (!some_left) return fail(ExitCode::kUsage, "--freeze: leaves no parameter to train");
    return {};
}

// Batch norms of which nothing is trained (of one without parameters: nothing of its layer) are in
// evaluation mode from now on. How many there are.
int evaluate_frozen_norms(Layer& layer) {
    const bool all_frozen = distinct_trainable(layer).empty();
    int count = 0;
    for (const BatchNorm& norm : layer.norms) {
        const bool trained = std::any_of(norm.parameters.begin(), norm.parameters.end(),
                                         [&](std::size_t i) { return layer.tensors[i].trainable; });
        if (norm.parameters.empty() ? !all_frozen : trained) continue;
        ++count;
        *norm.evaluates = true;
        const auto own = [&](std::size_t buffer) {
            return std::find(norm.buffers.begin(), norm.buffers.end(), buffer) !=
                   norm.buffers.end();
        };
        std::erase_if(layer.statistics,
                      [&](const RunningStatistic& each) { return own(each.buffer); });
        std::erase_if(layer.counters, own);
    }
    return count;
}

struct Loaded {
    Layers layers;
    std::optional<GraphFile> graph;
    [[nodiscard]] Result<ModelInfo> info() const {
        return describe(layers, graph ? &*graph : nullptr);
    }
    [[nodiscard]] ValueGraph flow() const { return flow_of(layers, graph ? &*graph : nullptr); }
};

Result<Loaded> load_all(const ModelSpec& spec) {
    Loaded loaded;
    if (!spec.graph.empty()) {
        const std::string source = spec.graph_directory.empty()
                                       ? std::string(kGraphFile)
                                       : spec.graph_directory + "/" + kGraphFile;
        ECOPIPE_ASSIGN_OR_RETURN(loaded.graph, parse_graph(spec.graph, source));
        auto layers = graph_layers(*loaded.graph);
        if (!layers) return fail_in(source, layers.error());
        loaded.layers = std::move(*layers);
    } else {
        ECOPIPE_ASSIGN_OR_RETURN(loaded.layers, spec.zoo.empty()
                                                    ? load_torchscript(spec.torchscript_path)
                                                    : build_zoo_model(spec));
    }
    ECOPIPE_RETURN_IF_ERROR(freeze_layers(loaded.layers, spec.freeze));
    if (!spec.frozen_norm_evaluates) return loaded;
    int norms = 0;
    for (const auto& layer : loaded.layers) norms += evaluate_frozen_norms(*layer);
    if (norms == 0)
        return fail(ExitCode::kUsage,
                    "--frozen-norm eval: the model has no batch norm with "
                    "statistics whose parameters are frozen");
    return loaded;
}

std::string remedy(const std::string& message, std::int64_t samples) {
    if (message.find("more than 1 value per channel") != std::string::npos)
        return fmt::format(
            "a micro-batch of {} leaves batch norm one value per channel; use fewer micro-batches, "
            "a batch that leaves a larger last one, or --drop-last",
            samples);
    return message;
}

// A likely cause of a failure: inputs are float32.
std::string other_precision(const Layers& layers) {
    for (const auto& layer : layers)
        for (const LayerTensor& tensor : layer->tensors)
            if (tensor.tensor.scalar_type() == at::kDouble)
                return fmt::format(
                    "; {} is in float64 (in Python: model.float() before it is saved)",
                    tensor.name);
    return "";
}

Result<ModelSpec> find_graph(const std::string& directory) {
    ModelSpec spec;
    const std::string path = directory + "/" + kGraphFile;
    if (!std::filesystem::exists(path))
        return fail(
            ExitCode::kUsage,
            fmt::format("--model {}: expected a directory with a {} (scripts/export_graph.py "
                        "makes one)",
                        printable(directory), kGraphFile));
    ECOPIPE_ASSIGN_OR_RETURN(spec.graph, read_file(path, kGraphBytesMax));
    spec.graph_directory = directory;
    spec.sha256 = sha256_hex(spec.graph);
    return spec;
}

}  // namespace

std::vector<const LayerTensor*> distinct_trainable(const Layer& layer) {
    std::vector<const LayerTensor*> found;
    for (const LayerTensor& tensor : layer.tensors)
        if (tensor.trainable &&
            std::none_of(found.begin(), found.end(), [&](const LayerTensor* earlier) {
                return earlier->first_name() == tensor.first_name();
            }))
            found.push_back(&tensor);
    return found;
}

std::vector<std::string> zoo_names() {
    std::vector<std::string> names;
    for (const ZooEntry& entry : kZoo) names.emplace_back(entry.name);
    return names;
}

Result<ModelSpec> find_model(const std::string& name_or_path) {
    ModelSpec spec;
    for (const ZooEntry& entry : kZoo) {
        if (name_or_path != entry.name) continue;
        spec.zoo = entry.name;
        return spec;
    }
    if (!std::filesystem::exists(name_or_path))
        return fail(ExitCode::kUsage,
                    fmt::format("--model: expected one of {}, a graph's directory or a TorchScript "
                                "file, found '{}'",
                                fmt::join(zoo_names(), ", "), printable(name_or_path)));
    if (std::filesystem::is_directory(name_or_path)) return find_graph(name_or_path);
    ECOPIPE_ASSIGN_OR_RETURN(const std::string bytes, read_file(name_or_path, kModelFileBytesMax));
    spec.torchscript_path = name_or_path;
    spec.sha256 = sha256_hex(bytes);
    return spec;
}

Result<LayerSequence> load_layers(const ModelSpec& spec, const LayerRange* range) {
    ECOPIPE_ASSIGN_OR_RETURN(Loaded loaded, load_all(spec));
    Layers& layers = loaded.layers;
    LayerSequence sequence;
    ECOPIPE_ASSIGN_OR_RETURN(sequence.info, loaded.info());
    if (range == nullptr) {
        sequence.layers = std::move(layers);
        return sequence;
    }
    if (range->first < 0 || range->last < range->first ||
        range->last >= static_cast<int>(layers.size()))
        return fail(ExitCode::kBadFile,
                    fmt::format("model {} has {} layers: layers {}..{} do not exist", spec.id(),
                                layers.size(), range->first, range->last));
    for (int i = range->first; i <= range->last; ++i)
        sequence.layers.push_back(std::move(layers[static_cast<std::size_t>(i)]));
    return sequence;
}

int required_channels(const ModelSpec& spec) {
    for (const ZooEntry& entry : kZoo)
        if (spec.zoo == entry.name) return static_cast<int>(entry.input.channels);
    const auto info = inspect_model(spec);
    return info ? info->input_channels : 0;
}

Result<ModelInfo> inspect_model(const ModelSpec& spec) {
    ECOPIPE_ASSIGN_OR_RETURN(const Loaded loaded, load_all(spec));
    return loaded.info();
}

Result<TensorMap> initial_weights(const ModelSpec& spec, std::uint64_t seed) {
    ECOPIPE_ASSIGN_OR_RETURN(const Loaded loaded, load_all(spec));
    TensorMap weights;
    for (const auto& layer : loaded.layers) {
        for (LayerTensor& tensor : layer->tensors) {
            if (tensor.lent) continue;
            if (tensor.initialise) {
                Rng rng(keyed_seed(seed, tensor.name));
                tensor.initialise(tensor.tensor, rng);
            }
            weights.push_back({tensor.name, to_host(tensor.tensor)});
        }
    }
    if (spec.graph_directory.empty()) return weights;
    const std::string path = spec.graph_directory + "/" + kGraphWeights;
    ECOPIPE_ASSIGN_OR_RETURN(const TensorMap given, read_safetensors(path));
    ECOPIPE_ASSIGN_OR_RETURN(const ModelInfo info, loaded.info());
    ECOPIPE_RETURN_IF_ERROR(adopt_weights(given, path, {}, info, weights));
    return weights;
}

Result<void> expect_trainable(const ModelInfo& info, const ModelSpec& spec) {
    std::size_t parameters = 0;
    for (const TensorInfo& tensor : info.tensors) {
        if (tensor.trainable) return {};
        if (!tensor.buffer) ++parameters;
    }
    if (parameters == 0)
        return fail(ExitCode::kUsage,
                    fmt::format("model {}: nothing to train: it has no parameters", spec.id()));
    return fail(ExitCode::kUsage,
                fmt::format("model {}: nothing to train: requires_grad is off for all of its {} "
                            "parameters (in Python: p.requires_grad_(True) before it is saved)",
                            spec.id(), parameters));
}

namespace {

Tensors tensors_of(const Batch& samples) {
    Tensors tensors;
    for (const HostTensor& input : samples.all_inputs()) tensors.push_back(to_torch(input).clone());
    return tensors;
}

}  // namespace

Result<void> try_model(const ModelSpec& spec, const LossSpec& loss_spec, const Batch& batch) {
    ECOPIPE_ASSIGN_OR_RETURN(const Loaded loaded, load_all(spec));
    const Layers& layers = loaded.layers;
    const ValueGraph flow = loaded.flow();
    ECOPIPE_ASSIGN_OR_RETURN(const auto loss, make_loss(loss_spec));
    bool trained = false;
    const at::NoGradGuard no_grad;
    const int count = static_cast<int>(layers.size());
    ValueTable table(flow, {0, count});
    table.put_entering(tensors_of(batch));
    Tensors values;
    const std::int64_t samples = batch.inputs.shape().empty() ? 0 : batch.inputs.shape()[0];
    std::string place = "the loss";
    try {
        for (std::size_t i = 0; i < layers.size(); ++i) {
            place = fmt::format("layer {} ({})", i, layers[i]->name);
            values = layers[i]->forward(table.arguments_of(static_cast<int>(i)), true);
            for (auto& value : values) value = value.contiguous();
            table.put_results(static_cast<int>(i), values);
            trained = trained || !distinct_trainable(*layers[i]).empty();
            if (trained && std::none_of(values.begin(), values.end(),
                                        [](const at::Tensor& v) { return v.is_floating_point(); }))
                return fail(ExitCode::kUsage,
                            fmt::format("model {}: {} hands on integers alone, so that no gradient "
                                        "comes back to what is trained before it (--freeze it)",
                                        spec.id(), place));
        }
        values = table.arguments_of(count);
        const std::int64_t outputs = values.front().dim() < 2 ? 1 : values.front().size(-1);
        if (loss_spec.name == "cross_entropy" && outputs < spec.num_classes)
            return fail(ExitCode::kUsage, fmt::format("model {}: has {} outputs, for {} classes",
                                                      spec.id(), outputs, spec.num_classes));
        place = "the loss";
        static_cast<void>(loss->evaluate(values, to_torch(batch.labels)));
    } catch (const std::exception& error) {
        return fail(
            ExitCode::kUsage,
            fmt::format("model {}: {} cannot take a micro-batch of {} samples of this data: {}",
                        spec.id(), place, samples,
                        remedy(torch_message(error), samples) + other_precision(layers)));
    }
    return {};
}

Result<std::size_t> largest_tensor_bytes(const ModelSpec& spec, const Batch& samples) {
    ECOPIPE_ASSIGN_OR_RETURN(const Loaded loaded, load_all(spec));
    const Layers& layers = loaded.layers;
    const ValueGraph flow = loaded.flow();
    const at::NoGradGuard no_grad;
    ValueTable table(flow, {0, static_cast<int>(layers.size())});
    table.put_entering(tensors_of(samples));
    std::size_t largest = 0;
    for (const HostTensor& input : samples.all_inputs()) largest = std::max(largest, input.bytes());
    std::size_t at = 0;
    try {
        for (; at < layers.size(); ++at) {
            Tensors values = layers[at]->forward(table.arguments_of(static_cast<int>(at)), false);
            for (auto& value : values) {
                value = value.contiguous();
                largest = std::max(largest, static_cast<std::size_t>(value.nbytes()));
            }
            table.put_results(static_cast<int>(at), std::move(values));
        }
    } catch (const std::exception& error) {
        return fail(ExitCode::kUsage,
                    fmt::format("model {}: layer {} ({}) cannot take a micro-batch of {} samples "
                                "of this data: {}",
                                spec.id(), at, layers[at]->name, samples.inputs.shape()[0],
                                torch_message(error)));
    }
    return largest;
}

}  // namespace ecopipe
