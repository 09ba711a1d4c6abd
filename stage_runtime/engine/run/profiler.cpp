#include "stage_runtime/engine/run/profiler.h"

#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "core/clock.h"
#include "core/host_facts.h"
#include "core/log.h"
#include "core/random.h"
#include "core/statistics.h"
#include "core/tensor_memory.h"
#include "core/units.h"
#include "core/work_clock.h"
#include "stage_runtime/data/dataset.h"
#include "stage_runtime/engine/model/layer_sequence.h"
#include "stage_runtime/engine/model/loss.h"
#include "stage_runtime/engine/model/losses/make_loss.h"
#include "stage_runtime/engine/model/tensor_bridge.h"
#include "stage_runtime/engine/model/torch_error.h"
#include "stage_runtime/engine/model/value_table.h"
#include "stage_runtime/engine/run/gradient_norm.h"
#include "stage_runtime/engine/run/gradient_table.h"
#include "stage_runtime/engine/run/layer_pass.h"
#include "stage_runtime/engine/run/optimizer.h"

namespace ecopipe {
namespace {

constexpr int kRepeatsMin = 5;
constexpr int kWarmups = 2;

template <class Work>
double time_ms(const Work& work) {
    const Instant started = monotonic_now();
    work();
    return to_ms(monotonic_now() - started);
}

std::size_t storage_bytes(const Tensors& tensors) {
    std::set<const void*> seen;
    std::size_t bytes = 0;
    for (const at::Tensor& tensor : tensors)  // undefined: a value that no gradient comes back for
        if (tensor.defined() && seen.insert(tensor.storage().data()).second)
            bytes += tensor.storage().nbytes();
    return bytes;
}

std::size_t above(std::size_t bytes, std::size_t base) { return bytes > base ? bytes - base : 0; }

// Times of one pass, one an entry a layer.
struct Pass {
    explicit Pass(std::size_t layers)
        : forward_ms(layers),
          backward_ms(layers),
          input_gradient_ms(layers),
          weight_gradient_ms(layers) {}
    std::vector<double> forward_ms;
    std::vector<double> backward_ms;        // of a pass whose backward is whole
    std::vector<double> input_gradient_ms;  // of a pass whose backward is split
    std::vector<double> weight_gradient_ms;
};

// In bytes, one an entry a layer.
struct Sizes {
    Sizes(std::size_t layers, std::size_t value_count)
        : crossing(layers),
          stash(layers),
          workspace(layers),
          kept_output(layers),
          values(value_count) {}
    std::vector<std::size_t> crossing;  // the cut behind the layer
    std::vector<std::size_t> stash;
    std::vector<std::size_t> workspace;
    std::vector<std::size_t> kept_output;  // of the output, what the layer's own backward needs
    std::vector<std::size_t> values;       // of ValueGraph::values()
};

class Profiler {
  public:
    Profiler(const ProfileRequest& request, LayerSequence sequence, std::unique_ptr<Loss> loss)
        : request_(request),
          sequence_(std::move(sequence)),
          loss_(std::move(loss)),
          gradients_(sequence_.layers.size()) {
        for (auto& layer : sequence_.layers)
            for (LayerTensor& tensor : layer->tensors)
                if (tensor.trainable) tensor.tensor.requires_grad_(true);
    }

    // Forward and backward of every layer; `sizes` is filled unless the backward is split.
    void run(const Batch& batch, bool split_backward, Pass& pass, Sizes* sizes) {
        const std::size_t count = sequence_.layers.size();
        const ValueGraph& flow = sequence_.info.flow;
        const LayerRange all{0, static_cast<int>(count) - 1};
        std::vector<LayerStash> stash(count);
        std::optional<WorkClock> work(std::in_place);
        ValueTable values(flow, all);
        Tensors inputs;
        for (const HostTensor& input : batch.all_inputs()) {
            // In a chain all of them are one value.
            if (sizes != nullptr)
                sizes->values[flow.is_chain() ? 0 : inputs.size()] += input.bytes();
            inputs.push_back(to_torch(input));
        }
        values.put_entering(inputs);
        for (at_layer_ = 0; at_layer_ < count; ++at_layer_) {
            const int layer = static_cast<int>(at_layer_);
            values.put_results(layer,
                               forward(at_layer_, values.arguments_of(layer), stash, pass, sizes));
        }
        GradientTable gradients(flow, all);
        gradients.put_returned(flow.leaving(all),
                               loss(values.leaving(), batch.labels, pass, split_backward, sizes));
        work->slow_down(request_.slowdown);
        work.emplace();
        std::vector<std::optional<PendingWeightGradient>> pending(count);
        for (at_layer_ = count; at_layer_-- > 0;) {
            const int layer = static_cast<int>(at_layer_);
            if (!flow.runs_backward(layer)) continue;
            const Tensors seeds = gradients.of_results(layer, stash[at_layer_].roots.size());
            gradients.add(layer, split_backward ? input_gradient(at_layer_, stash, seeds, pass,
                                                                 pending[at_layer_])
                                                : backward(at_layer_, stash, seeds, pass, sizes));
        }
        for (at_layer_ = count; at_layer_-- > 0;)
            if (pending[at_layer_])
                pass.weight_gradient_ms[at_layer_] = time_ms([&] {
                    static_cast<void>(weight_gradients_of(*sequence_.layers[at_layer_],
                                                          std::move(*pending[at_layer_])));
                });
    }

    // What the program needs besides its tensors: its code, torch and BLAS with their buffers, as
    // resident after one pass.
    double process_mib(const Batch& batch) {
        reset_peak_tensor_bytes();
        Pass unused(sequence_.layers.size());
        run(batch, false, unused, nullptr);
        return std::max(0.0, resident_mib() - static_cast<double>(peak_tensor_bytes()) / kMib);
    }

    double update_ms(std::size_t i) {
        const auto optimizer = make_optimizer(request_.optimizer);
        const at::NoGradGuard no_grad;
        std::vector<double> times;
        for (int repeat = 0; repeat < kRepeatsMin; ++repeat) {
            double total = 0;
            for (const LayerTensor* tensor : distinct_trainable(*sequence_.layers[i])) {
                if (!tensor->same_as.empty()) continue;  // updated where it has its first name
                at::Tensor value = tensor->tensor.detach().clone();
                const at::Tensor gradient = at::zeros_like(value);
                auto state = optimizer->fresh_state(value);
                total += time_ms([&] {
                    static_cast<void>(squared_norm(gradient));
                    optimizer->update(value, gradient, state, 0.01);
                });
            }
            times.push_back(total);
        }
        return median(times);
    }

    [[nodiscard]] std::string place() const {
        return at_layer_ < sequence_.layers.size()
                   ? fmt::format("layer {} ({})", at_layer_, sequence_.layers[at_layer_]->name)
                   : "the loss";
    }
    [[nodiscard]] const LayerSequence& sequence() const { return sequence_; }

  private:
    Tensors forward(std::size_t i, const Tensors& values, std::vector<LayerStash>& stash,
                    Pass& pass, Sizes* sizes) {
        const int layer = static_cast<int>(i);
        const bool graph = sequence_.info.flow.runs_backward(layer);
        const Instant started = monotonic_now();
        Tensors inputs;
        for (const at::Tensor& value : values) inputs.push_back(value.contiguous());
        const std::size_t live_before = live_tensor_bytes();
        reset_peak_tensor_bytes();
        LayerStash kept;
        Tensors outputs =
            forward_layer(*sequence_.layers[i], inputs,
                          wanted_gradients(sequence_.info.flow, layer), graph ? &kept : nullptr);
        pass.forward_ms[i] = to_ms(monotonic_now() - started);
        if (sizes != nullptr) measure_forward(i, inputs, outputs, live_before, graph, *sizes);
        if (graph) stash[i] = std::move(kept);
        return outputs;
    }

    // The loss belongs to the last layer, both ways. The gradients of its inputs.
    Tensors loss(const Tensors& values, const HostTensor& labels, Pass& pass, bool split_backward,
                 Sizes* sizes) {
        const std::size_t live_before = live_tensor_bytes();
        reset_peak_tensor_bytes();
        const Instant started = monotonic_now();
        Tensors leaves;
        const at::AutoGradMode graph(true);
        for (const at::Tensor& value : values) {
            leaves.push_back(value.detach().contiguous());
            if (leaves.back().is_floating_point()) leaves.back().requires_grad_(true);
        }
        const LossValue loss = loss_->evaluate(leaves, to_torch(labels));
        pass.forward_ms.back() += to_ms(monotonic_now() - started);
        const std::size_t live = live_tensor_bytes();
        const std::size_t output_bytes = storage_bytes(leaves);
        Tensors gradients;
        (split_backward ? pass.input_gradient_ms : pass.backward_ms).back() = time_ms([&] {
            gradients = torch::autograd::grad({loss.sum}, leaves, {at::ones_like(loss.sum)}, false,
                                              false, true);
        });
        if (sizes != nullptr) {
            // Until the backward the loss keeps what it takes, too.
            sizes->stash.back() += output_bytes + above(live, live_before);
            sizes->workspace.back() =
                std::max(sizes->workspace.back(), above(peak_tensor_bytes(), live));
        }
        return gradients;
    }

    Tensors input_gradient(std::size_t i, std::vector<LayerStash>& stash, const Tensors& gradients,
                           Pass& pass, std::optional<PendingWeightGradient>& pending) {
        Tensors found;
        pass.input_gradient_ms[i] += time_ms([&] {
            found = input_gradients_of(*sequence_.layers[i], std::exchange(stash[i], {}), gradients,
                                       pending);
        });
        return found;
    }

    // As the executor does from the second micro-batch on.
    void add_up(std::size_t i, const Tensors& found) {
        const at::NoGradGuard no_grad;
        Tensors& sums = gradients_[i];
        sums.resize(found.size());
        for (std::size_t p = 0; p < found.size(); ++p) {
            if (!found[p].defined()) continue;
            if (!sums[p].defined()) sums[p] = at::zeros_like(found[p]);
            sums[p].add_(found[p]);
        }
    }

    // Kept for backward: the input, and what forward left alive besides an output of its own. What
    // lives besides is workspace: the output, and in backward the gradients of the outputs too.
    void measure_forward(std::size_t i, const Tensors& inputs, const Tensors& outputs,
                         std::size_t live_before, bool graph, Sizes& sizes) const {
        const auto bytes_of = [](const at::Tensor& tensor) {
            return static_cast<std::size_t>(tensor.numel()) * tensor.element_size();
        };
        // A value crosses every cut up to its last user.
        const ValueGraph& flow = sequence_.info.flow;
        const std::vector<int>& made = flow.results_of(static_cast<int>(i));
        for (std::size_t k = 0; k < outputs.size(); ++k) {
            const int value = flow.is_chain() ? made.front() : made[k];
            sizes.values[static_cast<std::size_t>(value)] += bytes_of(outputs[k]);
            const int last = std::min(
                flow.values()[static_cast<std::size_t>(value)].consumers.back(), flow.layers());
            for (auto at = i; at < std::max<std::size_t>(i + 1, static_cast<std::size_t>(last));
                 ++at)
                sizes.crossing[at] += bytes_of(outputs[k]);
        }
        std::set<const void*> input_storages;
        for (const at::Tensor& input : inputs) input_storages.insert(input.storage().data());
        Tensors fresh;
        for (const at::Tensor& output : outputs)
            if (!input_storages.contains(output.storage().data())) fresh.push_back(output);
        const std::size_t live = live_tensor_bytes();
        const std::size_t grown = above(live, live_before);
        const std::size_t output_bytes = std::min(storage_bytes(fresh), grown);
        sizes.stash[i] = graph ? storage_bytes(inputs) + grown - output_bytes : 0;
        sizes.workspace[i] =
            std::max(sizes.workspace[i], above(peak_tensor_bytes(), live) + output_bytes);
        // Whoever else holds the output's memory is the layer's graph.
        for (const at::Tensor& output : fresh)
            if (graph && output.storage().use_count() > 1)
                sizes.kept_output[i] += output.storage().nbytes();
    }

    Tensors backward(std::size_t i, std::vector<LayerStash>& stash, const Tensors& gradients,
                     Pass& pass, Sizes* sizes) {
        const LayerStash kept = std::move(stash[i]);
        stash[i] = {};
        const std::size_t live_before = live_tensor_bytes();
        reset_peak_tensor_bytes();
        const Instant started = monotonic_now();
        LayerGradients found = backward_layer(*sequence_.layers[i], kept, gradients);
        add_up(i, found.parameters);
        pass.backward_ms[i] += to_ms(monotonic_now() - started);
        if (sizes != nullptr)
            sizes->workspace[i] =
                std::max(sizes->workspace[i],
                         above(peak_tensor_bytes(), live_before) + storage_bytes(gradients));
        return std::move(found.inputs);
    }

    const ProfileRequest& request_;
    LayerSequence sequence_;
    std::unique_ptr<Loss> loss_;
    std::vector<Tensors> gradients_;  // summed over passes, a list a layer
    std::size_t at_layer_ = 0;
};

Result<Batch> measured_batch(const ProfileRequest& request, int samples) {
    if (request.batch) return request.batch(samples);
    const ModelSpec& spec = request.spec;
    Shape shape = spec.input_shape;
    shape.insert(shape.begin(), samples);
    Batch batch{HostTensor::allocate(DType::kF32, shape),
                HostTensor::allocate(DType::kI64, {samples})};
    Rng rng(1);
    for (float& value : batch.inputs.as<float>()) value = static_cast<float>(rng.uniform());
    for (std::int64_t& label : batch.labels.as<std::int64_t>())
        label = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(spec.num_classes)));
    return batch;
}

// Medians over passes of at least the time asked for; every other one splits its backward. One
// more for the sizes.
Pass measure_size(Profiler& profiler, const Batch& batch, double seconds, Sizes& sizes) {
    const std::size_t layers = profiler.sequence().layers.size();
    Pass unused(layers);
    for (int i = 0; i < kWarmups; ++i) profiler.run(batch, i % 2 != 0, unused, nullptr);
    std::vector<Pass> passes;
    const Instant until = monotonic_now() + from_ms(seconds * 1000);
    while (static_cast<int>(passes.size()) < kRepeatsMin || monotonic_now() < until) {
        passes.emplace_back(layers);
        profiler.run(batch, true, passes.back(), nullptr);
        profiler.run(batch, false, passes.back(), nullptr);
    }
    profiler.run(batch, false, unused, &sizes);
    Pass result(layers);
    for (const auto part : {&Pass::forward_ms, &Pass::backward_ms, &Pass::input_gradient_ms,
                            &Pass::weight_gradient_ms})
        for (std::size_t i = 0; i < layers; ++i) {
            std::vector<double> times;
            for (const Pass& pass : passes) times.push_back((pass.*part)[i]);
            (result.*part)[i] = median(times);
        }
    return result;
}

std::size_t input_bytes(const Batch& batch) {
    std::size_t bytes = 0;
    for (const HostTensor& input : batch.all_inputs()) bytes += input.bytes();
    return bytes;
}

// Of a graph: what its layers hand one another.
std::vector<ValueProfile> value_profiles(const ValueGraph& flow,
                                         const std::vector<std::size_t>& bytes,
                                         std::size_t samples) {
    std::vector<ValueProfile> out;
    for (std::size_t i = 0; i < bytes.size() && !flow.is_chain(); ++i) {
        const ModelValue& value = flow.values()[i];
        out.push_back({value.producer, value.consumers, (bytes[i] + samples - 1) / samples,
                       value.has_gradient});
    }
    return out;
}

ModelProfile empty_profile(const ProfileRequest& request, const ModelInfo& info,
                           std::size_t input_bytes) {
    ModelProfile profile;
    profile.model = request.spec.id();
    profile.device = request.device;
    profile.threads = request.threads;
    profile.input = request.spec.input_shape;
    profile.num_classes = request.spec.num_classes;
    profile.input_bytes_per_sample = input_bytes;
    for (const LayerInfo& layer : info.layers) {
        LayerProfile entry;
        entry.name = layer.name;
        entry.kind = layer.kind;
        entry.joined_to_previous = layer.joined_to_previous;
        profile.layers.push_back(entry);
    }
    for (const TensorInfo& tensor : info.tensors)
        if (tensor.buffer && tensor.same_as.empty())
            profile.layers[static_cast<std::size_t>(tensor.layer)].buffer_bytes +=
                *checked_bytes(tensor.dtype, tensor.shape);
    bool some_frozen = false;
    for (LayerProfile& layer : profile.layers) layer.trainable_parameter_bytes = 0;
    for (const TensorInfo& tensor : info.tensors) {
        if (tensor.buffer || !tensor.same_as.empty()) continue;
        LayerProfile& layer = profile.layers[static_cast<std::size_t>(tensor.layer)];
        const std::size_t bytes = *checked_bytes(tensor.dtype, tensor.shape);
        layer.parameter_bytes += bytes;
        if (tensor.trainable) *layer.trainable_parameter_bytes += bytes;
        some_frozen = some_frozen || !tensor.trainable;
    }
    if (!some_frozen)
        for (LayerProfile& layer : profile.layers) layer.trainable_parameter_bytes.reset();
    profile.optimize_with(request.optimizer.slots(), optimizer_bytes(info, request.optimizer));
    return profile;
}

}  // namespace

Result<ModelProfile> profile_model(const ProfileRequest& request) {
    ECOPIPE_ASSIGN_OR_RETURN(LayerSequence sequence, load_layers(request.spec, nullptr));
    ECOPIPE_ASSIGN_OR_RETURN(auto loss, make_loss(request.loss));
    ECOPIPE_ASSIGN_OR_RETURN(const TensorMap weights, initial_weights(request.spec, 0));
    {
        const at::NoGradGuard no_grad;
        std::size_t next = 0;
        for (auto& layer : sequence.layers)
            for (LayerTensor& tensor : layer->tensors)
                if (!tensor.lent) tensor.tensor.copy_(to_torch(weights[next++].tensor));
    }
    ECOPIPE_ASSIGN_OR_RETURN(Batch batch, measured_batch(request, request.micro_batches.front()));
    ModelProfile profile =
        empty_profile(request, sequence.info,
                      input_bytes(batch) / static_cast<std::size_t>(request.micro_batches[0]));
    const std::size_t count = sequence.layers.size();
    Profiler profiler(request, std::move(sequence), std::move(loss));
    try {
        profile.process_mib = profiler.process_mib(batch);
        for (const int micro_batch : request.micro_batches) {
            const bool largest = micro_batch == request.micro_batches.back();
            const ValueGraph& flow = profiler.sequence().info.flow;
            Sizes sizes(count, flow.values().size());
            ECOPIPE_ASSIGN_OR_RETURN(batch, measured_batch(request, micro_batch));
            const Pass pass = measure_size(profiler, batch, request.seconds_per_size, sizes);
            const auto samples = static_cast<std::size_t>(micro_batch);
            if (largest) profile.values = value_profiles(flow, sizes.values, samples);
            for (std::size_t i = 0; i < count; ++i) {
                profile.layers[i].timing.push_back(
                    {micro_batch, pass.forward_ms[i], pass.backward_ms[i],
                     pass.input_gradient_ms[i], pass.weight_gradient_ms[i],
                     static_cast<double>(sizes.stash[i]), static_cast<double>(sizes.workspace[i])});
                if (!largest) continue;
                profile.layers[i].output_bytes_per_sample =
                    (sizes.crossing[i] + samples - 1) / samples;
                profile.layers[i].stash_bytes_per_sample = (sizes.stash[i] + samples - 1) / samples;
                profile.layers[i].workspace_bytes_per_sample =
                    (sizes.workspace[i] + samples - 1) / samples;
                profile.layers[i].keeps_output = sizes.kept_output[i] > 0;
                profile.layers[i].update_ms = profiler.update_ms(i);
            }
        }
    } catch (const std::exception& error) {
        return fail(ExitCode::kUsage, fmt::format("model {}: {}: {}", request.spec.id(),
                                                  profiler.place(), torch_message(error)));
    }
    return profile;
}

}  // namespace ecopipe
