#include "stage_runtime/engine/run/executor.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "core/check.h"
#include "core/log.h"
#include "core/tensor_memory.h"
#include "stage_runtime/engine/model/layer_sequence.h"
#include "stage_runtime/engine/model/loss.h"
#include "stage_runtime/engine/model/losses/make_loss.h"
#include "stage_runtime/engine/model/tensor_bridge.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/model/torch_error.h"
#include "stage_runtime/engine/model/value_table.h"
#include "stage_runtime/engine/run/gradient_norm.h"
#include "stage_runtime/engine/run/gradient_packing.h"
#include "stage_runtime/engine/run/gradient_table.h"
#include "stage_runtime/engine/run/layer_pass.h"
#include "stage_runtime/engine/run/optimizer.h"
#include "stage_runtime/engine/run/parameter_set.h"
#include "stage_runtime/engine/run/running_statistics.h"
#include "stage_runtime/engine/run/segment_map.h"
#include "stage_runtime/engine/run/slice_buffers.h"

namespace ecopipe {
namespace {

constexpr std::string_view kCodecState = "codec/";
constexpr std::size_t kSliceInputsMax = 64;  // as on the wire

// What a segment that runs again does so from.
struct SegmentStash {
    Tensors inputs;
    Tensors buffers;  // the stateful ones, as the first pass found them
};

struct MicroBatchStash {
    std::vector<SegmentStash> segments;  // one for each that is recomputed
    std::vector<LayerStash> layers;
    at::Tensor loss;
};

void key_generator(std::uint64_t seed, std::size_t layer, std::uint64_t step,
                   std::uint32_t micro_batch) {
    auto generator = at::detail::getDefaultCPUGenerator();
    const std::lock_guard lock(generator.mutex());
    generator.set_current_seed(keyed_seed(seed, {layer, step, micro_batch}));
}

// What a backward needs too stays where it is counted.
HostTensor leaving(const at::Tensor& tensor) {
    if (tensor.storage().use_count() == 1) name_memory(tensor, MemoryUse::kLeaving);
    return to_host(tensor);
}

}  // namespace

struct Executor::Impl {
    ExecutorOptions options;
    ModelInfo info;
    Layers layers;
    std::unique_ptr<Loss> loss;
    std::unique_ptr<Optimizer> optimizer;
    ParameterSet parameters;
    std::optional<RunningStatistics> statistics;  // with several sum blocks, where there are some
    std::vector<WantedGradients> wanted;          // a layer
    SegmentMap segments;                          // that are recomputed
    SliceBuffers buffers;
    std::vector<std::pair<std::string, at::Tensor>> frozen;  // parameters that are never updated

    std::uint64_t step = 0;
    double loss_divisor = 1;
    std::map<std::uint32_t, MicroBatchStash> stash;
    // Between the halves of a split backward; one entry a layer, none where nothing is left to do.
    std::map<std::uint32_t, std::vector<std::optional<PendingWeightGradient>>> pending;
    StepTotals totals;
    bool finished = false;                          // the step's gradients are added up
    std::map<std::size_t, ErrorFeedback> feedback;  // by slice input
    std::vector<int> returns;                       // the values of the gradients that come back

    [[nodiscard]] std::size_t model_layer(std::size_t i) const {
        return static_cast<std::size_t>(options.range.first) + i;
    }
    [[nodiscard]] std::size_t own_layer(int layer) const {
        ECOPIPE_CHECK(options.range.contains(layer));
        return static_cast<std::size_t>(layer - options.range.first);
    }
    [[nodiscard]] bool last() const {
        return options.range.last + 1 == static_cast<int>(info.layers.size());
    }
    [[nodiscard]] bool runs_backward(std::size_t i) const {
        return info.flow.runs_backward(static_cast<int>(model_layer(i)));
    }
    [[nodiscard]] std::string residual_name(std::size_t input) const {
        return fmt::format("{}{}/{}", kCodecState, options.range.first, input);
    }
    [[nodiscard]] std::string place(std::size_t i) const {
        return fmt::format("layer {} ({})", model_layer(i), layers[i]->name);
    }

    void index_tensors() {
        parameters = ParameterSet(layers, options.range, *optimizer, SumTree(options.sum_blocks));
        for (const TiedUse& use : info.flow.ties())
            if (use.trainable) parameters.tie(use.name, use.home, use.user);
        if (options.sum_blocks > 1) statistics.emplace(layers);
        if (statistics && statistics->bytes() == 0) statistics.reset();
        buffers = SliceBuffers(layers);
        for (const auto& layer : layers)
            for (const LayerTensor& tensor : layer->tensors)
                if (!tensor.trainable && (!tensor.buffer || tensor.lent))
                    frozen.emplace_back(tensor.name, tensor.tensor);
    }

    [[nodiscard]] RunningStatistics* kept_statistics() {
        return statistics ? &*statistics : nullptr;
    }
    // Forward of one layer; its graph goes to `kept`, if it has one.
    void run_layer(std::size_t i, ValueTable& values, std::uint32_t micro_batch, LayerStash* kept) {
        begin_layer_memory();
        if (layers[i]->draws) key_generator(options.seed, model_layer(i), step, micro_batch);
        const int layer = static_cast<int>(model_layer(i));
        values.put_results(layer, forward_layer(*layers[i], values.arguments_of(layer), wanted[i],
                                                runs_backward(i) ? kept : nullptr));
    }

    // Keeps the graphs, or what segments run again from. What leaves the slice, or the loss takes.
    Tensors run_slice(const Tensors& inputs, std::uint32_t micro_batch, MicroBatchStash& entry,
                      std::size_t& at_layer) {
        ValueTable values(info.flow, options.range);
        values.put_entering(inputs);
        entry.layers.resize(layers.size());
        for (at_layer = 0; at_layer < layers.size(); ++at_layer) {
            const int segment = segments.of(at_layer);
            if (segment == static_cast<int>(entry.segments.size())) {
                const at::NoGradGuard no_grad;
                entry.segments.push_back({values.entering(segments.layers(segment)), {}});
                for (const at::Tensor& value : buffers.stateful(segments.own_layers(segment)))
                    entry.segments.back().buffers.push_back(value.clone());
            }
            run_layer(at_layer, values, micro_batch,
                      segment < 0 ? &entry.layers[at_layer] : nullptr);
        }
        return values.leaving();
    }

    // Runs the segment that ends with this layer forward again, for its graphs.
    void recompute(MicroBatchStash& entry, std::uint32_t micro_batch, std::size_t& at_layer) {
        const int number = segments.of(at_layer);
        const SegmentStash kept =
            std::exchange(entry.segments[static_cast<std::size_t>(number)], {});
        const LayerRange segment = segments.layers(number);
        const std::size_t last = at_layer;
        const at::NoGradGuard no_grad;
        const RunningStatistics::Capture capture(kept_statistics());  // has them already
        buffers.run_again(segments.own_layers(number), kept.buffers, [&] {
            ValueTable values(info.flow, segment);
            values.put_entering(kept.inputs);
            for (at_layer = own_layer(segment.first); at_layer <= last; ++at_layer)
                run_layer(at_layer, values, micro_batch, &entry.layers[at_layer]);
        });
        at_layer = last;
    }

    // Gradients of layer i's inputs; adds those of its parameters.
    Tensors layer_backward(std::size_t i, std::uint32_t micro_batch, const LayerStash& kept,
                           const Tensors& gradients) {
        LayerGradients found = backward_layer(*layers[i], kept, gradients);
        parameters.add(i, micro_batch, found.parameters);
        return std::move(found.inputs);
    }

    // The gradients of the slice's outputs: the loss's own, or those that came back.
    Tensors seeds(MicroBatchStash& entry, const std::vector<HostTensor>& output_gradients) const {
        Tensors gradients;
        if (!last()) {
            for (const HostTensor& gradient : output_gradients)
                gradients.push_back(gradient.defined() ? to_torch(gradient) : at::Tensor());
            return gradients;
        }
        const Tensors leaves = entry.layers.back().inputs;
        const at::Tensor seed = at::full_like(entry.loss, 1.0 / loss_divisor);
        gradients = torch::autograd::grad({entry.loss}, leaves, {seed}, false, false, true);
        for (at::Tensor& gradient : gradients)
            if (gradient.defined()) gradient = gradient.contiguous();
        entry.loss = at::Tensor();
        entry.layers.pop_back();
        return gradients;
    }

    // Walks a micro-batch back through the slice; `layer_step(i, stash, gradients)` does one
    // layer and returns the gradients of its inputs. The slice's input gradients, if somebody
    // wants them.
    template <class LayerStep>
    Result<std::vector<HostTensor>> walk_back(std::uint32_t micro_batch,
                                              const std::vector<HostTensor>& output_gradients,
                                              const LayerStep& layer_step) {
        const auto found = stash.find(micro_batch);
        ECOPIPE_CHECK(found != stash.end());
        MicroBatchStash entry = std::move(found->second);
        stash.erase(found);
        std::size_t at_layer = layers.size();
        try {
            GradientTable gradients(info.flow, options.range);
            gradients.put_returned(returns, seeds(entry, output_gradients));
            for (at_layer = layers.size(); at_layer-- > 0;) {
                if (segments.ends_at(at_layer)) recompute(entry, micro_batch, at_layer);
                if (!runs_backward(at_layer)) continue;
                begin_layer_memory();
                const int layer = static_cast<int>(model_layer(at_layer));
                LayerStash kept = std::exchange(entry.layers[at_layer], {});
                const std::size_t outputs = kept.roots.size();
                gradients.add(layer, layer_step(at_layer, std::move(kept),
                                                gradients.of_results(layer, outputs)));
            }
            std::vector<HostTensor> out;
            for (const at::Tensor& gradient : gradients.entering())
                out.push_back(gradient.defined() ? leaving(gradient) : HostTensor());
            return out;
        } catch (const std::exception& error) {
            return failure(at_layer < layers.size() ? place(at_layer) : "the loss", error);
        }
    }

    tl::unexpected<Error> failure(const std::string& where, const std::exception& error) const {
        return fail(ExitCode::kRunFailed, fmt::format("{}: {}", where, torch_message(error)));
    }
};

Executor::Executor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Executor::~Executor() = default;

Result<std::unique_ptr<Executor>> Executor::create(const ModelSpec& spec,
                                                   const ExecutorOptions& options) {
    const MemoryScope memory(MemoryUse::kWeights);
    ECOPIPE_ASSIGN_OR_RETURN(LayerSequence sequence, load_layers(spec, &options.range));
    ECOPIPE_ASSIGN_OR_RETURN(auto loss, make_loss(options.loss));
    keep_bits_stable();
    auto impl = std::make_unique<Impl>();
    impl->options = options;
    impl->info = std::move(sequence.info);
    impl->layers = std::move(sequence.layers);
    impl->loss = std::move(loss);
    impl->optimizer = make_optimizer(options.optimizer);
    impl->index_tensors();
    impl->segments = SegmentMap(options.recomputed, options.range, impl->info.flow);
    for (std::size_t i = 0; i < impl->layers.size(); ++i)
        impl->wanted.push_back(
            wanted_gradients(impl->info.flow, static_cast<int>(impl->model_layer(i))));
    impl->returns = impl->info.flow.leaving(options.range);
    return std::unique_ptr<Executor>(new Executor(std::move(impl)));
}

void Executor::set_returns(std::vector<int> values) { impl_->returns = std::move(values); }

bool Executor::sends_input_gradient() const {
    const ValueGraph& flow = impl_->info.flow;
    const std::vector<int> values = flow.entering(impl_->options.range);
    return std::any_of(values.begin(), values.end(),
                       [&](int value) { return flow.returns_gradient(value); });
}
const ModelInfo& Executor::model() const { return impl_->info; }
LayerRange Executor::range() const { return impl_->options.range; }

void Executor::recompute(const Segments& segments) {
    impl_->segments = SegmentMap(segments, impl_->options.range, impl_->info.flow);
}

bool Executor::fits(const ExecutorOptions& options) const {
    const ExecutorOptions& mine = impl_->options;
    return mine.range == options.range && mine.optimizer == options.optimizer &&
           mine.loss == options.loss && mine.seed == options.seed &&
           mine.sum_blocks == options.sum_blocks && mine.gradient_codec == TensorCodec::kNone &&
           options.gradient_codec == TensorCodec::kNone;
}

std::vector<EncodedTensor> Executor::encode_gradients(std::vector<HostTensor> gradients) {
    std::vector<EncodedTensor> encoded;
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        const TensorCodec codec = impl_->options.gradient_codec;
        encoded.push_back(gradients[i].defined() && codec != TensorCodec::kNone
                              ? impl_->feedback[i].encode(gradients[i], codec)
                              : EncodedTensor{std::move(gradients[i])});
    }
    return encoded;
}

Result<void> Executor::load_state(const std::string& name, const HostTensor& value) {
    if (name.starts_with(kCodecState)) {
        for (std::size_t i = 0; i < kSliceInputsMax; ++i)
            if (name == impl_->residual_name(i)) impl_->feedback[i].load(value.clone());
        return {};
    }
    const at::NoGradGuard no_grad;
    const auto copy_into = [&](at::Tensor target) -> Result<void> {
        const at::Tensor source = to_torch(value);
        if (source.sizes() != target.sizes() || source.scalar_type() != target.scalar_type())
            return fail(ExitCode::kBadFile,
                        fmt::format("tensor {}: expected shape {}, found {}", printable(name),
                                    shape_text(target.sizes().vec()), shape_text(value.shape())));
        target.copy_(source);
        return {};
    };
    for (Parameter& parameter : impl_->parameters.all()) {
        if (std::find(parameter.names.begin(), parameter.names.end(), name) !=
            parameter.names.end())
            return copy_into(parameter.value.detach());
        for (auto& [slot, tensor] : parameter.state)
            if (name == fmt::format("optimizer/{}/{}", slot, parameter.names.front()))
                return copy_into(tensor);
    }
    if (at::Tensor* lent = impl_->parameters.borrowed(name)) return copy_into(lent->detach());
    impl_->buffers.sync();
    if (at::Tensor* buffer = impl_->buffers.find(name)) return copy_into(*buffer);
    for (auto& [frozen_name, tensor] : impl_->frozen)
        if (name == frozen_name) return copy_into(tensor);
    return fail(ExitCode::kBadFile, fmt::format("tensor {} is not of this model", printable(name)));
}

void Executor::reset_optimizer() {
    const MemoryScope memory(MemoryUse::kMoments);
    for (Parameter& parameter : impl_->parameters.all())
        parameter.state = impl_->optimizer->fresh_state(parameter.value.detach());
    impl_->feedback.clear();
}

TensorMap Executor::state(bool optimizer_state, StateMemory as) const {
    const MemoryScope memory(MemoryUse::kRecovery);
    TensorMap out;
    impl_->buffers.sync();
    for (const auto& layer : impl_->layers)
        for (const LayerTensor& tensor : layer->tensors)
            if (!tensor.lent) out.push_back({tensor.name, to_host(tensor.tensor)});
    if (optimizer_state) {
        for (const Parameter& parameter : impl_->parameters.all())
            for (const auto& [slot, tensor] : parameter.state)
                out.push_back({fmt::format("optimizer/{}/{}", slot, parameter.names.front()),
                               to_host(tensor)});
        for (const auto& [i, feedback] : impl_->feedback)
            if (feedback.residual().defined())
                out.push_back({impl_->residual_name(i), feedback.residual()});
    }
    if (as == StateMemory::kCopies)
        for (NamedTensor& entry : out) entry.tensor = entry.tensor.clone();
    return out;
}

std::map<int, TensorMap> Executor::lent_state() const {
    const MemoryScope memory(MemoryUse::kRecovery);
    std::map<int, TensorMap> out;
    for (std::size_t i = 0; i < impl_->layers.size(); ++i)
        for (const LayerTensor& tensor : impl_->layers[i]->tensors)
            if (tensor.lent)
                out[static_cast<int>(impl_->model_layer(i))].push_back(
                    {tensor.name, to_host(tensor.tensor).clone()});
    return out;
}

HostTensor Executor::tied_gradient(const std::string& name, int user) {
    return to_host(impl_->parameters.found_by(name, user).clone());
}

void Executor::add_tied_gradient(const std::string& name, int user, const HostTensor& gradient) {
    impl_->parameters.bring(name, user, to_torch(gradient));
}

HostTensor Executor::tied_weight(const std::string& name) const {
    for (const Parameter& parameter : impl_->parameters.all())
        if (parameter.names.front() == name) return to_host(parameter.value.detach().clone());
    return {};
}

std::map<int, std::size_t> Executor::gradient_bytes() const {
    std::map<int, std::size_t> bytes;
    for (std::size_t i = 0; i < impl_->layers.size(); ++i)
        for (const at::Tensor& value : impl_->parameters.values_of(i))
            bytes[static_cast<int>(impl_->model_layer(i))] += value.nbytes();
    return bytes;
}

LayerGradient Executor::take_sum(int layer, int node) {
    const std::size_t i = impl_->own_layer(layer);
    return pack_gradient(impl_->parameters.take(i, node), impl_->parameters.values_of(i));
}

Result<void> Executor::add_sum(int layer, int node, const LayerGradient& sum) {
    const std::size_t i = impl_->own_layer(layer);
    ECOPIPE_ASSIGN_OR_RETURN(Tensors sums, unpack_gradient(sum, impl_->parameters.values_of(i)));
    impl_->parameters.put(i, node, std::move(sums));
    return {};
}

LayerGradient Executor::total(int layer) {
    const std::size_t i = impl_->own_layer(layer);
    return pack_gradient(impl_->parameters.totals(i), impl_->parameters.values_of(i));
}

Result<void> Executor::set_total(int layer, const LayerGradient& total) {
    const std::size_t i = impl_->own_layer(layer);
    ECOPIPE_ASSIGN_OR_RETURN(Tensors sums, unpack_gradient(total, impl_->parameters.values_of(i)));
    impl_->parameters.put_totals(i, std::move(sums));
    return {};
}

std::size_t Executor::statistics_bytes() const {
    return impl_->statistics ? impl_->statistics->bytes() : 0;
}

HostTensor Executor::statistics(std::uint32_t micro_batch) const {
    return impl_->statistics->of(micro_batch);
}

Result<void> Executor::add_statistics(std::uint32_t micro_batch, HostTensor found) {
    ECOPIPE_CHECK(impl_->statistics.has_value());
    return impl_->statistics->add(micro_batch, std::move(found));
}

void Executor::begin_step(std::uint64_t step, double loss_divisor) {
    discard();
    impl_->step = step;
    impl_->loss_divisor = loss_divisor;
    impl_->buffers.begin_step();
}

Result<std::vector<HostTensor>> Executor::forward(std::uint32_t micro_batch,
                                                  const std::vector<HostTensor>& inputs,
                                                  const HostTensor* labels) {
    Impl& self = *impl_;
    std::size_t at_layer = 0;
    try {
        Tensors values;
        for (const HostTensor& input : inputs) values.push_back(to_torch(input));
        MicroBatchStash entry;
        RunningStatistics::Capture capture(self.kept_statistics());
        values = self.run_slice(std::exchange(values, {}), micro_batch, entry, at_layer);
        capture.keep(micro_batch);
        std::vector<HostTensor> outputs;
        if (self.last()) {
            ECOPIPE_CHECK(labels != nullptr);
            const at::AutoGradMode mode(true);
            Tensors leaves;
            for (const at::Tensor& value : values) {
                at::Tensor leaf = value.detach().contiguous();
                if (leaf.is_floating_point()) leaf.requires_grad_(true);
                leaves.push_back(std::move(leaf));
            }
            const LossValue value = self.loss->evaluate(leaves, to_torch(*labels));
            entry.loss = value.sum;
            entry.layers.resize(self.layers.size() + 1);
            entry.layers.back() = {leaves, {}};
            self.totals.losses[micro_batch] = totals_of(value);
        } else {
            for (const at::Tensor& value : values) outputs.push_back(leaving(value));
        }
        self.stash[micro_batch] = std::move(entry);
        return outputs;
    } catch (const std::exception& error) {
        return self.failure(at_layer < self.layers.size() ? self.place(at_layer) : "the loss",
                            error);
    }
}

Result<std::vector<HostTensor>> Executor::backward(std::uint32_t micro_batch,
                                                   const std::vector<HostTensor>& output_gradients,
                                                   const LayerDone& layer_done) {
    return impl_->walk_back(micro_batch, output_gradients,
                            [&](std::size_t i, const LayerStash& kept, const Tensors& gradients) {
                                Tensors inputs =
                                    impl_->layer_backward(i, micro_batch, kept, gradients);
                                if (layer_done) layer_done(static_cast<int>(impl_->model_layer(i)));
                                return inputs;
                            });
}

Result<std::vector<HostTensor>> Executor::input_gradient(
    std::uint32_t micro_batch, const std::vector<HostTensor>& output_gradients) {
    auto& pending = impl_->pending[micro_batch];
    pending.resize(impl_->layers.size());
    return impl_->walk_back(micro_batch, output_gradients,
                            [&](std::size_t i, LayerStash kept, const Tensors& gradients) {
                                return input_gradients_of(*impl_->layers[i], std::move(kept),
                                                          gradients, pending[i]);
                            });
}

Result<void> Executor::weight_gradient(std::uint32_t micro_batch, const LayerDone& layer_done) {
    Impl& self = *impl_;
    auto entry = self.pending.extract(micro_batch);
    ECOPIPE_CHECK(!entry.empty());
    std::size_t at_layer = self.layers.size();
    try {
        while (at_layer-- > 0) {
            auto pending = std::exchange(entry.mapped()[at_layer], std::nullopt);
            if (!pending) continue;
            begin_layer_memory();
            self.parameters.add(at_layer, micro_batch,
                                weight_gradients_of(*self.layers[at_layer], std::move(*pending)));
            if (layer_done) layer_done(static_cast<int>(self.model_layer(at_layer)));
        }
        return {};
    } catch (const std::exception& error) {
        return self.failure(self.place(at_layer), error);
    }
}

StepTotals Executor::finish_step() {
    Impl& self = *impl_;
    begin_layer_memory();
    StepTotals& totals = self.totals;
    self.parameters.add_up();
    self.finished = true;
    totals.loss = {};
    for (const auto& [micro_batch, loss] : totals.losses) totals.loss.add(loss);
    totals.squared_gradient_norms.assign(self.layers.size(), 0);
    for (const Parameter& parameter : self.parameters.all())
        if (parameter.gradient.defined())
            totals.squared_gradient_norms[parameter.layer] += squared_norm(parameter.gradient);
    for (std::size_t i = 0; i < self.layers.size() && totals.nonfinite_layer < 0; ++i)
        if (!std::isfinite(totals.squared_gradient_norms[i]))
            totals.nonfinite_layer = static_cast<int>(self.model_layer(i));
    return totals;
}

void Executor::commit(double learning_rate, double gradient_scale) {
    Impl& self = *impl_;
    ECOPIPE_CHECK(self.finished);  // else nothing would be updated
    const at::NoGradGuard no_grad;
    for (Parameter& parameter : self.parameters.all()) {
        if (!parameter.gradient.defined()) continue;
        at::Tensor value = parameter.value.detach();
        self.optimizer->update(
            value,
            gradient_scale != 1.0 ? parameter.gradient.mul(gradient_scale) : parameter.gradient,
            parameter.state, learning_rate);
    }
    if (self.statistics) self.statistics->commit();
    self.buffers.commit();  // the statistics of the step are the state now
    for (auto& [i, feedback] : self.feedback) feedback.commit();
    discard();
}

void Executor::discard() {
    Impl& self = *impl_;
    const at::NoGradGuard no_grad;
    self.stash.clear();
    self.pending.clear();
    for (auto& [i, feedback] : self.feedback) feedback.discard();
    self.totals = {};
    self.finished = false;
    self.parameters.discard();
    if (self.statistics) self.statistics->discard();
    self.buffers.discard();
}

Result<std::vector<HostTensor>> Executor::evaluate(const std::vector<HostTensor>& inputs,
                                                   const HostTensor* labels, LossTotals& totals) {
    const MemoryScope memory(MemoryUse::kEvaluation);
    Impl& self = *impl_;
    std::size_t at_layer = 0;
    try {
        const at::NoGradGuard no_grad;
        Tensors values;
        for (const HostTensor& input : inputs) values.push_back(to_torch(input));
        ValueTable table(self.info.flow, self.options.range);
        table.put_entering(std::exchange(values, {}));
        for (at_layer = 0; at_layer < self.layers.size(); ++at_layer) {
            Layer& layer = *self.layers[at_layer];
            const int number = static_cast<int>(self.model_layer(at_layer));
            Tensors arguments = table.arguments_of(number);
            if (layer.writes_input)
                for (at::Tensor& argument : arguments) argument = argument.clone();
            Tensors results = layer.forward(arguments, false);
            for (at::Tensor& result : results) result = result.contiguous();
            table.put_results(number, std::move(results));
        }
        values = table.leaving();
        std::vector<HostTensor> outputs;
        if (self.last()) {
            ECOPIPE_CHECK(labels != nullptr);
            const LossValue value = self.loss->evaluate(values, to_torch(*labels));
            totals.add(totals_of(value));
        } else {
            for (const at::Tensor& value : values) outputs.push_back(to_host(value));
        }
        return outputs;
    } catch (const std::exception& error) {
        return self.failure(at_layer < self.layers.size() ? self.place(at_layer) : "the loss",
                            error);
    }
}

}  // namespace ecopipe
