#pragma once
// What a model's layers cost on one device: the measured times and sizes of a profile.json.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"
#include "domain/value_graph.h"

namespace ecopipe {

// One layer's times at one micro-batch size, in milliseconds of that device.
struct LayerTiming {
    int micro_batch = 1;
    double forward_ms = 0;
    double backward_ms = 0;
    std::optional<double> input_gradient_ms;  // with autograd cut at layer boundaries
    std::optional<double> weight_gradient_ms;
    // As the layer's bytes a sample say, measured at this size.
    std::optional<double> stash_bytes{};
    std::optional<double> workspace_bytes{};
};

struct LayerProfile {
    std::string name;
    std::uint64_t parameter_bytes = 0;
    std::optional<std::uint64_t> trainable_parameter_bytes;  // of them; absent: all
    std::uint64_t output_bytes_per_sample = 0;
    std::uint64_t stash_bytes_per_sample =
        0;  // input included, output excluded, views counted once
    std::uint64_t workspace_bytes_per_sample = 0;  // peak above kept bytes while the layer runs
    std::uint64_t buffer_bytes = 0;                // normalisation statistics and their like
    bool keeps_output = false;  // its backward needs its output, whoever else has that
    double update_ms = 0;
    std::vector<LayerTiming> timing;  // ascending, distinct micro_batch
    std::string kind;                 // optional, "" when unknown
    std::optional<double> forward_flops_per_sample;
    bool joined_to_previous =
        false;  // shares a storage with the previous layer: no cut between them
    std::optional<std::uint64_t> optimizer_bytes{};  // absent: slots times what is trainable

    [[nodiscard]] std::uint64_t trainable_bytes() const {
        return trainable_parameter_bytes.value_or(parameter_bytes);
    }
};

// What passes between layers of a graph. In the cut behind a layer `output_bytes_per_sample` adds
// up all values that cross it; which of them goes where, a graph has to say for each.
struct ValueProfile {
    int producer = -1;           // a layer; -1: it is an input of the model
    std::vector<int> consumers;  // layers, ascending; as many as there are layers means the loss
    std::uint64_t bytes_per_sample = 0;
    bool gradient = true;  // one may come back for it: it is a floating-point value
    friend bool operator==(const ValueProfile&, const ValueProfile&) = default;
};

struct ModelProfile {
    std::string model;  // zoo name, or "sha256:..." of the TorchScript file
    std::string device;
    int threads = 1;
    std::vector<std::int64_t> input;  // one sample, without the batch dimension
    int num_classes = 0;
    std::uint64_t input_bytes_per_sample = 0;
    int optimizer_slots = 1;
    double process_mib = 0;  // what the program itself needs
    bool partial = false;    // lists only some layers
    std::vector<LayerProfile> layers;
    std::vector<ValueProfile> values;  // in the order of ValueGraph::values(); none: a chain
    std::string source;                // the file it came from, for errors; not part of the text

    [[nodiscard]] bool is_graph() const { return !values.empty(); }
    // What the layers hand one another. Of a graph, what one takes stands in the order of `values`.
    [[nodiscard]] ValueGraph flow() const;
    // Of a chain: nothing left of it runs backward. 0 unless a layer says what of it is trainable.
    [[nodiscard]] int first_trainable_layer() const;
    // The profile of the same model under another optimiser, which keeps so much for each layer.
    void optimize_with(int slots, const std::vector<std::uint64_t>& optimizer_bytes);
    // The profile of the same model with only so many bytes of each layer's parameters trained: no
    // backward and no stash in a layer that is not trained and depends on none that is, no update
    // where nothing is trained.
    // Errors: kBadFile when it was measured with more frozen than that.
    [[nodiscard]] Result<void> train_only(const std::vector<std::uint64_t>& trainable_bytes);
};

// A layer's times at `micro_batch` samples, linear between its measured sizes; nothing outside
// them.
[[nodiscard]] std::optional<LayerTiming> timing_at(const LayerProfile& layer, int micro_batch);

// `source` names the text in errors. Refuses everything that INTERFACES does not allow, with its
// place.
[[nodiscard]] Result<ModelProfile> parse_profile(std::string_view text, const std::string& source);
[[nodiscard]] Result<ModelProfile> read_profile(const std::string& path);
[[nodiscard]] std::string profile_text(const ModelProfile& profile);  // the bytes of profile.json

}  // namespace ecopipe
