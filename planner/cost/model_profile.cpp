#include "planner/cost/model_profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "core/files.h"
#include "core/schema.h"
#include "core/strict_json.h"
#include "domain/limits.h"

namespace ecopipe {
namespace {

// Beyond these no device of this decade has a layer; within them no sum or product of the planner
// overflows.
constexpr double kMsMax = 1e9;
constexpr std::int64_t kBytesMax = std::int64_t{1} << 44;
constexpr double kFlopsMax = 1e18;
constexpr int kValuesOfLayerMax = 64;  // as many as a layer of a graph may make

std::uint64_t bytes(Fields& fields, const std::string& key) {
    return static_cast<std::uint64_t>(fields.integer(key, {0, kBytesMax}));
}

LayerTiming read_timing(Fields& fields) {
    LayerTiming timing;
    timing.micro_batch = static_cast<int>(fields.integer("micro_batch", {1, kMicroBatchMax}));
    timing.forward_ms = fields.number("forward_ms", {0, kMsMax});
    timing.backward_ms = fields.number("backward_ms", {0, kMsMax});
    const bool input = fields.has("input_gradient_ms");
    if (input != fields.has("weight_gradient_ms"))
        fields.refuse(input ? "weight_gradient_ms" : "input_gradient_ms",
                      "expected both gradient times or neither, found one");
    const double input_ms = fields.number("input_gradient_ms", {0, kMsMax}, 0);
    const double weight_ms = fields.number("weight_gradient_ms", {0, kMsMax}, 0);
    if (input) {
        timing.input_gradient_ms = input_ms;
        timing.weight_gradient_ms = weight_ms;
    }
    if (fields.has("stash_bytes")) timing.stash_bytes = bytes(fields, "stash_bytes");
    if (fields.has("workspace_bytes")) timing.workspace_bytes = bytes(fields, "workspace_bytes");
    fields.no_others();
    return timing;
}

LayerProfile read_layer(Fields& fields) {
    LayerProfile layer;
    layer.name = fields.text("name");
    layer.parameter_bytes = bytes(fields, "parameter_bytes");
    if (fields.has("trainable_parameter_bytes"))
        layer.trainable_parameter_bytes = static_cast<std::uint64_t>(fields.integer(
            "trainable_parameter_bytes", {0, static_cast<std::int64_t>(layer.parameter_bytes)}));
    if (fields.has("optimizer_bytes")) layer.optimizer_bytes = bytes(fields, "optimizer_bytes");
    layer.output_bytes_per_sample = bytes(fields, "output_bytes_per_sample");
    layer.stash_bytes_per_sample = bytes(fields, "stash_bytes_per_sample");
    layer.workspace_bytes_per_sample =
        static_cast<std::uint64_t>(fields.integer("workspace_bytes_per_sample", {0, kBytesMax}, 0));
    layer.buffer_bytes =
        static_cast<std::uint64_t>(fields.integer("buffer_bytes", {0, kBytesMax}, 0));
    layer.keeps_output = fields.flag("keeps_output", false);
    layer.update_ms = fields.number("update_ms", {0, kMsMax});
    layer.kind = fields.text("kind", "");
    if (fields.has("forward_flops_per_sample"))
        layer.forward_flops_per_sample = fields.number("forward_flops_per_sample", {0, kFlopsMax});
    layer.joined_to_previous = fields.flag("joined_to_previous", false);
    for (Fields& timing : fields.objects("timing")) {
        layer.timing.push_back(read_timing(timing));
        const std::size_t n = layer.timing.size();
        if (n > 1 && layer.timing[n - 1].micro_batch <= layer.timing[n - 2].micro_batch)
            timing.refuse(
                "micro_batch",
                fmt::format("expected more than the entry before it ({}), found {}",
                            layer.timing[n - 2].micro_batch, layer.timing[n - 1].micro_batch));
    }
    if (layer.timing.empty()) fields.refuse("timing", "expected at least one entry, found none");
    fields.no_others();
    return layer;
}

void read_layers(Fields& root, ModelProfile& profile) {
    std::set<std::string> names;
    std::vector<Fields> layers = root.objects("layers");
    if (layers.empty() || layers.size() > static_cast<std::size_t>(kLayersMax)) {
        root.refuse("layers",
                    fmt::format("expected 1 to {} layers, found {}", kLayersMax, layers.size()));
        return;
    }
    for (Fields& fields : layers) {
        profile.layers.push_back(read_layer(fields));
        if (!names.insert(profile.layers.back().name).second)
            fields.refuse("name", fmt::format("expected a name of its own, found '{}' again",
                                              profile.layers.back().name));
    }
    if (profile.layers.front().joined_to_previous && !profile.partial)
        layers.front().refuse("joined_to_previous",
                              "expected false for the first layer, found true");
}

// Values stand in the order of their makers: the inputs, then those of each layer, at least one. So
// the last layer's goes to the loss, since nothing else is behind it.
void read_values(Fields& root, ModelProfile& profile) {
    if (!root.has("values")) return;
    std::vector<Fields> values = root.objects("values");
    const int layers = static_cast<int>(profile.layers.size());
    if (profile.partial) {
        root.refuse("values", "expected none in a partial profile, found some");
        return;
    }
    int last = -1;
    int of_last = 0;
    for (Fields& fields : values) {
        ValueProfile value;
        value.producer = static_cast<int>(fields.integer("producer", {-1, layers - 1}));
        const bool first = profile.values.empty();
        if (value.producer != last && (first || value.producer != last + 1))
            fields.refuse("producer", fmt::format("expected {}{}, found {}", last,
                                                  first ? "" : fmt::format(" or {}", last + 1),
                                                  value.producer));
        of_last = value.producer == last ? of_last + 1 : 1;
        last = value.producer;
        if (of_last > kValuesOfLayerMax) {
            fields.refuse("producer", fmt::format("expected at most {} values of layer {}",
                                                  kValuesOfLayerMax, last));
            return;
        }
        int above = last;
        for (const std::int64_t consumer : fields.integers("consumers", {0, layers})) {
            if (consumer <= above)
                fields.refuse("consumers",
                              fmt::format("expected layers behind {}, found {}", above, consumer));
            above = static_cast<int>(consumer);
            value.consumers.push_back(above);
        }
        if (value.consumers.empty())
            fields.refuse("consumers", "expected at least one, found none");
        value.bytes_per_sample = bytes(fields, "bytes_per_sample");
        value.gradient = fields.flag("gradient", true);
        fields.no_others();
        profile.values.push_back(std::move(value));
    }
    if (last != layers - 1)
        root.refuse("values",
                    fmt::format("expected some of each of {} layers, found the last of layer {}",
                                layers, last));
}

OrderedJson value_json(const ValueProfile& value) {
    return {{"producer", value.producer},
            {"consumers", value.consumers},
            {"bytes_per_sample", value.bytes_per_sample},
            {"gradient", value.gradient}};
}

OrderedJson timing_json(const LayerTiming& timing) {
    OrderedJson out = {{"micro_batch", timing.micro_batch},
                       {"forward_ms", timing.forward_ms},
                       {"backward_ms", timing.backward_ms}};
    if (timing.input_gradient_ms) out["input_gradient_ms"] = *timing.input_gradient_ms;
    if (timing.weight_gradient_ms) out["weight_gradient_ms"] = *timing.weight_gradient_ms;
    if (timing.stash_bytes) out["stash_bytes"] = static_cast<std::uint64_t>(*timing.stash_bytes);
    if (timing.workspace_bytes)
        out["workspace_bytes"] = static_cast<std::uint64_t>(*timing.workspace_bytes);
    return out;
}

OrderedJson layer_json(const LayerProfile& layer) {
    OrderedJson out = {{"name", layer.name},
                       {"parameter_bytes", layer.parameter_bytes},
                       {"output_bytes_per_sample", layer.output_bytes_per_sample},
                       {"stash_bytes_per_sample", layer.stash_bytes_per_sample},
                       {"workspace_bytes_per_sample", layer.workspace_bytes_per_sample},
                       {"update_ms", layer.update_ms}};
    if (layer.trainable_parameter_bytes)
        out["trainable_parameter_bytes"] = *layer.trainable_parameter_bytes;
    if (layer.optimizer_bytes) out["optimizer_bytes"] = *layer.optimizer_bytes;
    if (layer.buffer_bytes > 0) out["buffer_bytes"] = layer.buffer_bytes;
    if (layer.keeps_output) out["keeps_output"] = true;
    if (!layer.kind.empty()) out["kind"] = layer.kind;
    if (layer.forward_flops_per_sample)
        out["forward_flops_per_sample"] = *layer.forward_flops_per_sample;
    if (layer.joined_to_previous) out["joined_to_previous"] = true;
    out["timing"] = OrderedJson::array();
    for (const LayerTiming& timing : layer.timing) out["timing"].push_back(timing_json(timing));
    return out;
}

double between(double a, double b, double t) { return a + (b - a) * t; }

std::optional<double> between(const std::optional<double>& a, const std::optional<double>& b,
                              double t) {
    if (!a || !b) return std::nullopt;
    return between(*a, *b, t);
}

}  // namespace

ValueGraph ModelProfile::flow() const {
    std::vector<bool> trainable;
    for (const LayerProfile& layer : layers) trainable.push_back(layer.trainable_bytes() > 0);
    if (!is_graph()) return ValueGraph::chain(trainable);
    std::vector<ModelValue> made;
    std::vector<std::vector<int>> arguments(layers.size() + 1);
    for (const ValueProfile& value : values) {
        const bool sibling = !made.empty() && made.back().producer == value.producer;
        const int number = static_cast<int>(made.size());
        for (const int consumer : value.consumers)
            arguments[static_cast<std::size_t>(consumer)].push_back(number);
        made.push_back({value.producer, sibling ? made.back().output + 1 : 0, value.consumers,
                        value.gradient});
    }
    return {std::move(made), std::move(arguments), std::move(trainable)};
}

int ModelProfile::first_trainable_layer() const {
    int first = 0;
    bool said = false;
    for (const LayerProfile& layer : layers) {
        said = said || layer.trainable_parameter_bytes;
        if (layer.trainable_bytes() > 0) return said ? first : 0;
        ++first;
    }
    return 0;
}

void ModelProfile::optimize_with(int slots, const std::vector<std::uint64_t>& optimizer_bytes) {
    optimizer_slots = slots;
    for (std::size_t i = 0; i < layers.size(); ++i) {
        LayerProfile& layer = layers[i];
        layer.optimizer_bytes.reset();
        if (optimizer_bytes[i] != layer.trainable_bytes() * static_cast<std::uint64_t>(slots))
            layer.optimizer_bytes = optimizer_bytes[i];
    }
}

Result<void> ModelProfile::train_only(const std::vector<std::uint64_t>& trainable_bytes) {
    bool some_frozen = false;
    for (std::size_t i = 0; i < layers.size(); ++i)
        some_frozen = some_frozen || trainable_bytes[i] < layers[i].parameter_bytes;
    for (std::size_t i = 0; i < layers.size(); ++i) {
        LayerProfile& layer = layers[i];
        const std::uint64_t measured = layer.trainable_bytes();
        if (measured < trainable_bytes[i])
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: layers[{}].trainable_parameter_bytes: expected {} as the "
                                    "run trains, found {}; measure with the same --freeze",
                                    source, i, trainable_bytes[i], measured));
        if (!some_frozen) continue;
        if (layer.optimizer_bytes && measured > 0)
            layer.optimizer_bytes = static_cast<std::uint64_t>(
                static_cast<double>(*layer.optimizer_bytes) *
                static_cast<double>(trainable_bytes[i]) / static_cast<double>(measured));
        layer.trainable_parameter_bytes = trainable_bytes[i];
        if (trainable_bytes[i] == 0) layer.update_ms = 0;
    }
    if (!some_frozen) return {};
    const ValueGraph trained = flow();
    for (std::size_t i = 0; i < layers.size(); ++i) {
        if (trained.runs_backward(static_cast<int>(i))) continue;
        layers[i].stash_bytes_per_sample = 0;
        for (LayerTiming& timing : layers[i].timing) {
            timing.backward_ms = 0;
            if (timing.input_gradient_ms) timing.input_gradient_ms = timing.weight_gradient_ms = 0;
            if (timing.stash_bytes) timing.stash_bytes = 0;
        }
    }
    return {};
}

Result<ModelProfile> parse_profile(std::string_view text, const std::string& source) {
    ECOPIPE_ASSIGN_OR_RETURN(Json json, parse_json(text, source));
    ECOPIPE_RETURN_IF_ERROR(check_schema(json, "ecopipe.profile", 1, source));
    Document document(std::move(json), source);
    Fields root = document.root();
    ModelProfile profile;
    profile.source = source;
    static_cast<void>(root.text("schema"));
    profile.model = root.text("model");
    profile.device = root.text("device");
    profile.threads = static_cast<int>(root.integer("threads", {1, 4096}, 1));
    profile.input = root.integers("input", {1, 1 << 24});
    if (profile.input.size() > 8)
        root.refuse("input",
                    fmt::format("expected at most 8 dimensions, found {}", profile.input.size()));
    profile.num_classes = static_cast<int>(root.integer("num_classes", {0, 1 << 24}, 0));
    profile.input_bytes_per_sample = bytes(root, "input_bytes_per_sample");
    profile.optimizer_slots = static_cast<int>(root.integer("optimizer_slots", {0, 8}));
    profile.process_mib = root.number("process_mib", {0, 1 << 24}, 0);
    profile.partial = root.flag("partial", false);
    read_layers(root, profile);
    read_values(root, profile);
    root.no_others();
    ECOPIPE_RETURN_IF_ERROR(document.finish());
    return profile;
}

Result<ModelProfile> read_profile(const std::string& path) {
    ECOPIPE_ASSIGN_OR_RETURN(const std::string text, read_file(path, kConfigBytesMax));
    return parse_profile(text, path);
}

std::string profile_text(const ModelProfile& profile) {
    OrderedJson out = {{"schema", "ecopipe.profile/1"},
                       {"model", profile.model},
                       {"device", profile.device},
                       {"threads", profile.threads},
                       {"input", profile.input},
                       {"num_classes", profile.num_classes},
                       {"input_bytes_per_sample", profile.input_bytes_per_sample},
                       {"optimizer_slots", profile.optimizer_slots},
                       {"process_mib", profile.process_mib}};
    if (profile.partial) out["partial"] = true;
    out["layers"] = OrderedJson::array();
    for (const LayerProfile& layer : profile.layers) out["layers"].push_back(layer_json(layer));
    for (const ValueProfile& value : profile.values) out["values"].push_back(value_json(value));
    return out.dump(1) + "\n";
}

std::optional<LayerTiming> timing_at(const LayerProfile& layer, int micro_batch) {
    const auto& timing = layer.timing;
    const auto above =
        std::lower_bound(timing.begin(), timing.end(), micro_batch,
                         [](const LayerTiming& t, int size) { return t.micro_batch < size; });
    if (above == timing.end()) return std::nullopt;
    if (above->micro_batch == micro_batch) return *above;
    if (above == timing.begin()) return std::nullopt;
    const LayerTiming& low = *(above - 1);
    const double t =
        static_cast<double>(micro_batch - low.micro_batch) / (above->micro_batch - low.micro_batch);
    return LayerTiming{micro_batch,
                       between(low.forward_ms, above->forward_ms, t),
                       between(low.backward_ms, above->backward_ms, t),
                       between(low.input_gradient_ms, above->input_gradient_ms, t),
                       between(low.weight_gradient_ms, above->weight_gradient_ms, t),
                       between(low.stash_bytes, above->stash_bytes, t),
                       between(low.workspace_bytes, above->workspace_bytes, t)};
}

}  // namespace ecopipe
