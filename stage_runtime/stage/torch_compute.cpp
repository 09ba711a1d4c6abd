#include "stage_runtime/stage/torch_compute.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <utility>

#include "core/files.h"
#include "core/host_facts.h"
#include "core/sha256.h"
#include "core/tensor_memory.h"
#include "core/work_clock.h"
#include "domain/plan_index.h"
#include "domain/state_names.h"
#include "stage_runtime/engine/model/models.h"

namespace ecopipe {
namespace {

constexpr auto kLateMax = std::chrono::milliseconds(50);  // that an emulated action catches up

Result<std::string> find_torchscript(const std::string& directory, const std::string& sha256) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
        const std::string path = entry.path().string();
        if (!entry.is_regular_file() || entry.path().extension() != ".pt") continue;
        const auto bytes = read_file(path, kModelFileBytesMax);
        if (bytes && sha256_hex(*bytes) == sha256) return path;
    }
    return fail(
        ExitCode::kBadFile,
        fmt::format(
            "the TorchScript file with SHA-256 {} is not in {}; copy it there: scp MODEL.pt {}:{}/",
            sha256, directory, host_name(), std::filesystem::absolute(directory, error).string()));
}

std::vector<EncodedTensor> encoded(std::vector<HostTensor> tensors, TensorCodec codec) {
    const MemoryScope memory(MemoryUse::kLeaving);
    std::vector<EncodedTensor> out;
    for (const HostTensor& tensor : tensors) out.push_back(encode_tensor(tensor, codec));
    return out;
}

}  // namespace

// An executor whose layers stay is used again: what it holds is loaded anew in any case.
Result<ValueGraph> TorchCompute::prepare(const Configure& work, const Plan& plan,
                                         std::span<const StageId> slices) {
    ModelSpec spec;
    spec.zoo = work.model;
    spec.sha256 = work.model_sha256;
    spec.graph = work.graph;
    spec.num_classes = static_cast<int>(work.num_classes);
    spec.input_shape = work.input_shape;
    spec.freeze = work.freeze;
    spec.frozen_norm_evaluates = work.frozen_norm_evaluates;
    reset_peak_tensor_bytes();  // what was measured before is not this work's
    std::vector<Slice> before = std::exchange(slices_, {});
    for (const StageId id : slices) {
        const StagePlan& stage = plan.stages[id.index()];
        const std::vector<StageHolder> holders = holders_of(stage, plan.sum_blocks);
        const auto here = std::find_if(holders.begin(), holders.end(), [&](const auto& holder) {
            return holder.device == work.device;
        });
        ExecutorOptions options;
        options.range = {stage.first_layer, stage.last_layer};
        if (here != holders.end()) options.recomputed = here->recomputed;
        options.optimizer = work.optimizer;
        options.loss = work.loss;
        options.seed = work.seed;
        const bool twins = holders.size() > 1;
        options.gradient_codec = twins ? TensorCodec::kNone : stage.codec_backward;
        const TensorCodec without_feedback = twins ? stage.codec_backward : TensorCodec::kNone;
        options.sum_blocks = plan.sum_blocks;
        const auto same = std::find_if(before.begin(), before.end(), [&](const Slice& slice) {
            return slice.executor && slice.executor->fits(options);
        });
        if (same != before.end()) {
            same->executor->reset_optimizer();
            same->executor->recompute(options.recomputed);
            slices_.push_back({std::move(same->executor), stage.codec_forward, without_feedback});
            continue;
        }
        if (spec.zoo.empty() && spec.graph.empty() && spec.torchscript_path.empty()) {
            ECOPIPE_ASSIGN_OR_RETURN(spec.torchscript_path,
                                     find_torchscript(models_directory_, spec.sha256));
        }
        ECOPIPE_ASSIGN_OR_RETURN(auto executor, Executor::create(spec, options));
        slices_.push_back({std::move(executor), stage.codec_forward, without_feedback});
    }
    if (slices_.empty()) return ValueGraph();
    const ValueGraph& flow = slices_.front().executor->model().flow;
    const PlanIndex index(plan, flow);
    for (std::size_t i = 0; i < slices.size(); ++i) {
        std::vector<int> values;
        for (const ValueWay& way : index.ways_of(slices[i]).returning) values.push_back(way.value);
        if (!values.empty()) slices_[i].executor->set_returns(std::move(values));
    }
    return flow;
}

std::vector<EncodedTensor> TorchCompute::encoded_gradients(const Slice& slice,
                                                           std::vector<HostTensor> gradients) {
    const MemoryScope memory(MemoryUse::kLeaving);
    if (slice.codec_without_feedback == TensorCodec::kNone)
        return slice.executor->encode_gradients(std::move(gradients));
    std::vector<EncodedTensor> out;
    for (HostTensor& gradient : gradients)
        out.push_back(gradient.defined() ? encode_tensor(gradient, slice.codec_without_feedback)
                                         : EncodedTensor{std::move(gradient)});
    return out;
}

void TorchCompute::discard() {
    for (const Slice& slice : slices_) slice.executor->discard();
}

std::map<int, TensorMap> TorchCompute::layer_states() const {
    std::map<int, TensorMap> layers;
    for (const Slice& slice : slices_) {
        const StateNames names(slice.executor->model());
        for (NamedTensor& entry : slice.executor->state(true))
            if (const auto layer = names.layer_of(entry.name))
                layers[*layer].push_back(std::move(entry));
        for (auto& [layer, tensors] : slice.executor->lent_state())
            for (NamedTensor& entry : tensors) layers[layer].push_back(std::move(entry));
    }
    return layers;
}

Result<void> TorchCompute::load(int layer, const TensorMap& state) {
    for (const Slice& slice : slices_) {
        if (!slice.executor->range().contains(layer)) continue;
        for (const NamedTensor& entry : state)
            ECOPIPE_RETURN_IF_ERROR(slice.executor->load_state(entry.name, entry.tensor));
        return {};
    }
    return fail(ExitCode::kRunFailed, fmt::format("layer {} is not on this device", layer));
}

void TorchCompute::recompute(const Segments& segments) {
    for (const Slice& slice : slices_)
        slice.executor->recompute(within(segments, slice.executor->range()));
}

void TorchCompute::begin(std::uint64_t step, const Begin& begin) {
    if (begin.mode != StepMode::kTrain) return;
    for (const Slice& slice : slices_) slice.executor->begin_step(step, begin.loss_divisor);
}

Result<ComputeResult> TorchCompute::run(ComputeJob job) {
    ComputeResult result;
    result.started = monotonic_now();
    WorkClock work;
    // An emulated device does not feel that this machine was late to wake its thread.
    if (slowdown_() > 1)
        work.started = std::clamp(std::max(free_since_, job.complete_since),
                                  work.started - kLateMax, work.started);
    // As slow from layer to layer, for what is handed over and taken in between. Told when all are
    // computed, since a core that has slept in between would compute slower.
    std::vector<std::pair<int, Duration>> layers;
    const auto layer_done = job.layer_done;
    if (layer_done && slowdown_() > 1)
        job.layer_done = [&](int layer) { layers.emplace_back(layer, work.used()); };
    ECOPIPE_RETURN_IF_ERROR(compute(job, result));
    for (const auto& [layer, used] : layers) {
        static_cast<void>(work.slow_down(slowdown_(), used));
        layer_done(layer);
    }
    free_since_ = work.slow_down(slowdown_());
    result.ended = monotonic_now();
    return result;
}

Result<void> TorchCompute::compute(const ComputeJob& job, ComputeResult& result) {
    const Slice& slice = slices_[static_cast<std::size_t>(job.action.slice)];
    Executor& executor = *slice.executor;
    const auto micro_batch = static_cast<std::uint32_t>(job.action.micro_batch);
    const HostTensor* labels = job.labels.defined() ? &job.labels : nullptr;
    if (job.mode == StepMode::kEvaluate) {  // which is never compressed
        ECOPIPE_ASSIGN_OR_RETURN(auto outputs, executor.evaluate(job.tensors, labels, result.loss));
        result.tensors = encoded(std::move(outputs), TensorCodec::kNone);
        return {};
    }
    switch (job.action.kind) {
        case ActionKind::kForward: {
            ECOPIPE_ASSIGN_OR_RETURN(auto outputs,
                                     executor.forward(micro_batch, job.tensors, labels));
            result.tensors = encoded(std::move(outputs), slice.codec_forward);
            return {};
        }
        case ActionKind::kBackward: {
            ECOPIPE_ASSIGN_OR_RETURN(auto gradients,
                                     executor.backward(micro_batch, job.tensors, job.layer_done));
            result.tensors = encoded_gradients(slice, std::move(gradients));
            return {};
        }
        case ActionKind::kInputGradient: {
            ECOPIPE_ASSIGN_OR_RETURN(auto gradients,
                                     executor.input_gradient(micro_batch, job.tensors));
            result.tensors = encoded_gradients(slice, std::move(gradients));
            return {};
        }
        case ActionKind::kWeightGradient:
            return executor.weight_gradient(micro_batch, job.layer_done);
    }
    return {};
}

HostTensor TorchCompute::tied_gradient(SliceId slice, const TiedUse& use) {
    return slices_[slice.index()].executor->tied_gradient(use.name, use.user);
}

void TorchCompute::add_tied_gradient(SliceId slice, const TiedUse& use,
                                     const HostTensor& gradient) {
    slices_[slice.index()].executor->add_tied_gradient(use.name, use.user, gradient);
}

HostTensor TorchCompute::tied_weight(SliceId slice, const TiedUse& use) {
    return slices_[slice.index()].executor->tied_weight(use.name);
}

Result<void> TorchCompute::set_tied_weight(SliceId slice, const TiedUse& use,
                                           const HostTensor& weight) {
    return slices_[slice.index()].executor->load_state(use.name, weight);
}

StageSums TorchCompute::sums() const {
    return {shared().gradient_bytes(), shared().statistics_bytes() > 0};
}

LayerGradient TorchCompute::take_sum(int layer, int node) { return shared().take_sum(layer, node); }

Result<void> TorchCompute::add_sum(int layer, int node, const LayerGradient& sum) {
    return shared().add_sum(layer, node, sum);
}

LayerGradient TorchCompute::total(int layer) { return shared().total(layer); }

Result<void> TorchCompute::set_total(int layer, const LayerGradient& total) {
    return shared().set_total(layer, total);
}

HostTensor TorchCompute::statistics(MicroBatchId micro_batch) const {
    return shared().statistics(micro_batch.value);
}

Result<void> TorchCompute::add_statistics(MicroBatchId micro_batch, const HostTensor& found) {
    return shared().add_statistics(micro_batch.value, found);
}

StepTotals TorchCompute::finish_step() {
    StepTotals all;
    for (const Slice& slice : slices_) {
        const StepTotals totals = slice.executor->finish_step();
        all.loss.add(totals.loss);
        all.losses.insert(totals.losses.begin(), totals.losses.end());
        all.squared_gradient_norms.insert(all.squared_gradient_norms.end(),
                                          totals.squared_gradient_norms.begin(),
                                          totals.squared_gradient_norms.end());
        if (all.nonfinite_layer < 0) all.nonfinite_layer = totals.nonfinite_layer;
    }
    return all;
}

void TorchCompute::commit(const Commit& commit) {
    const WorkClock work;
    for (const Slice& slice : slices_)
        slice.executor->commit(commit.learning_rate, commit.gradient_scale);
    free_since_ = work.slow_down(slowdown_());
}

TensorMap TorchCompute::state(SliceId slice, bool optimizer_state) const {
    return slices_[slice.index()].executor->state(optimizer_state, StateMemory::kShared);
}

std::size_t TorchCompute::live_bytes() const { return live_tensor_bytes(); }
MemoryByUse TorchCompute::take_peak_memory() {
    const MemoryByUse peak = peak_tensor_memory();
    reset_peak_tensor_bytes();
    return peak;
}

}  // namespace ecopipe
