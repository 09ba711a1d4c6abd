#include "planner/cost/cost_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/units.h"
#include "domain/limits.h"
#include "domain/plan_index.h"
#include "planner/cost/resource_table.h"

namespace ecopipe {
namespace {

std::vector<std::vector<double>> range_maxima(std::vector<double> values) {
    std::vector<std::vector<double>> levels{std::move(values)};
    for (std::size_t width = 2; width <= levels[0].size(); width *= 2) {
        const std::vector<double>& half = levels.back();
        std::vector<double> level(levels[0].size() - width + 1);
        for (std::size_t i = 0; i < level.size(); ++i)
            level[i] = std::max(half[i], half[i + width / 2]);
        levels.push_back(std::move(level));
    }
    return levels;
}

double range_max(const std::vector<std::vector<double>>& levels, std::size_t first,
                 std::size_t last) {
    std::size_t level = 0;
    while ((std::size_t{2} << level) <= last - first + 1) ++level;
    return std::max(levels[level][first], levels[level][last + 1 - (std::size_t{1} << level)]);
}

}  // namespace

bool size_is_measured(const ResolvedProfiles& resolved, int micro_batch) {
    for (const ResolvedProfiles::Source& source : resolved.of_device)
        for (const LayerProfile& layer : resolved.profiles[source.profile].layers)
            if (!timing_at(layer, micro_batch)) return false;
    return true;
}

int largest_measured(const ResolvedProfiles& resolved) {
    int out = kMicroBatchMax;
    for (const ResolvedProfiles::Source& source : resolved.of_device)
        for (const LayerProfile& layer : resolved.profiles[source.profile].layers)
            out = std::min(out, layer.timing.back().micro_batch);
    return out;
}

Result<CostModel::DeviceCost> CostModel::device_cost(const ModelProfile& profile,
                                                     double speed) const {
    DeviceCost out;
    out.slots = profile.optimizer_slots;
    out.sums.push_back({});
    std::vector<double> workspace;
    for (const LayerProfile& layer : profile.layers) {
        const auto timing = timing_at(layer, micro_batch_);
        if (!timing)
            return fail(
                ExitCode::kBadFile,
                fmt::format(
                    "{}: layer '{}': timing: expected micro-batches of {} samples within those "
                    "measured ({} to {}); measure {} too",
                    profile.source, layer.name, micro_batch_, layer.timing.front().micro_batch,
                    layer.timing.back().micro_batch, micro_batch_));
        Sums next = out.sums.back();
        next.forward += timing->forward_ms / speed;
        next.backward += timing->backward_ms / speed;
        next.input_gradient += timing->input_gradient_ms.value_or(0) / speed;
        next.weight_gradient += timing->weight_gradient_ms.value_or(0) / speed;
        next.update += layer.update_ms / speed;
        next.parameters += static_cast<double>(layer.parameter_bytes);
        next.trainable += static_cast<double>(layer.trainable_bytes());
        next.moments += static_cast<double>(layer.optimizer_bytes.value_or(
            layer.trainable_bytes() * static_cast<std::uint64_t>(profile.optimizer_slots)));
        next.buffers += static_cast<double>(layer.buffer_bytes);
        next.stash += timing->stash_bytes.value_or(
            static_cast<double>(layer.stash_bytes_per_sample) * micro_batch_);
        out.sums.push_back(next);
        out.kept_output.push_back(
            layer.keeps_output ? static_cast<double>(layer.output_bytes_per_sample) * micro_batch_
                               : 0);
        workspace.push_back(timing->workspace_bytes.value_or(
            static_cast<double>(layer.workspace_bytes_per_sample) * micro_batch_));
    }
    out.workspace_max = range_maxima(std::move(workspace));
    return out;
}

Result<CostModel> CostModel::make(const Cluster& cluster, const ResolvedProfiles& resolved,
                                  int batch, int micro_batches, int sum_blocks,
                                  Recomputation recomputation) {
    CostModel out;
    out.recomputation_ = recomputation;
    out.more_sums_ = sum_blocks - 1;
    out.cluster_ = cluster;
    out.micro_batches_ = micro_batches;
    out.micro_batch_ = (batch + micro_batches - 1) / micro_batches;
    const ModelProfile& shape = resolved.profiles.front();
    out.layers_ = static_cast<int>(shape.layers.size());
    out.first_trainable_ = shape.first_trainable_layer();
    out.graph_ = shape.is_graph();
    if (out.graph_) {
        std::vector<double> bytes;
        for (const ValueProfile& value : shape.values)
            bytes.push_back(static_cast<double>(value.bytes_per_sample) * out.micro_batch_);
        out.ways_ = GraphWays(shape.flow(), std::move(bytes));
    }
    out.output_bytes_.push_back(static_cast<double>(shape.input_bytes_per_sample) *
                                out.micro_batch_);
    for (const LayerProfile& layer : shape.layers) {
        out.joined_.push_back(layer.joined_to_previous ? 1 : 0);
        out.output_bytes_.push_back(static_cast<double>(layer.output_bytes_per_sample) *
                                    out.micro_batch_);
    }
    out.split_ = true;
    out.media_ = !cluster.default_link.medium.empty();
    for (const auto& [ends, link] : cluster.links) out.media_ |= !link.medium.empty();
    for (std::size_t d = 0; d < cluster.devices.size(); ++d) {
        const ResolvedProfiles::Source& source = resolved.of_device[d];
        const ModelProfile& profile = resolved.profiles[source.profile];
        ECOPIPE_ASSIGN_OR_RETURN(DeviceCost device, out.device_cost(profile, source.speed));
        device.budget = (cluster.devices[d].memory_mib - profile.process_mib) * kMib;
        out.device_.push_back(std::move(device));
        for (const LayerProfile& layer : profile.layers)
            out.split_ &= timing_at(layer, out.micro_batch_)->weight_gradient_ms.has_value();
        for (std::size_t to = 0; to < cluster.devices.size(); ++to) {
            Wire wire;
            if (d != to)
                wire = {8 / (cluster.link(d, to).mbps * 1000), cluster.link(d, to).latency_ms};
            out.wires_.push_back(wire);
        }
    }
    return out;
}

double CostModel::work_ms(int device, int first, int last, bool split_backward) const {
    const auto& sums = device_[static_cast<std::size_t>(device)].sums;
    const Sums& end = sums[static_cast<std::size_t>(last) + 1];
    const Sums& begin = sums[static_cast<std::size_t>(first)];
    const double forward = end.forward - begin.forward;
    if (!split_backward) return forward + (end.backward - begin.backward);
    return forward + (end.input_gradient - begin.input_gradient) +
           (end.weight_gradient - begin.weight_gradient);
}

StageCost CostModel::stage_cost(const StageSpan& stage) const {
    const auto& sums = device_[static_cast<std::size_t>(stage.device)].sums;
    const Sums& end = sums[static_cast<std::size_t>(stage.last) + 1];
    const Sums& begin = sums[static_cast<std::size_t>(stage.first)];
    StageCost out;
    out.forward_ms = end.forward - begin.forward;
    out.recompute_ms = stage.recompute ? out.forward_ms : 0;
    out.backward_ms = end.backward - begin.backward + out.recompute_ms;
    out.input_gradient_ms = end.input_gradient - begin.input_gradient;
    out.weight_gradient_ms = end.weight_gradient - begin.weight_gradient;
    out.update_ms = end.update - begin.update;
    return out;
}

StageMemory CostModel::stage_memory(const StageSpan& stage) const {
    const DeviceCost& device = device_[static_cast<std::size_t>(stage.device)];
    const Sums& end = device.sums[static_cast<std::size_t>(stage.last) + 1];
    const Sums& begin = device.sums[static_cast<std::size_t>(stage.first)];
    const auto first = static_cast<std::size_t>(stage.first);
    const auto last = static_cast<std::size_t>(stage.last);
    const double stash = end.stash - begin.stash + device.kept_output[last];
    StageMemory out;
    out.fixed = state_bytes(stage) + range_max(device.workspace_max, first, last);
    out.in_flight = stage.recompute ? output_bytes_[first] : stash;
    if (stage.recompute) out.fixed += stash;
    // A call of its own, not inlined: the search asks this a million times of chains, and its loop
    // would take their registers.
    return graph_ && stage.recompute ? taken_by_slice(stage, out) : out;
}

// What passes the slice by crosses the cut before it, and is not its input.
StageMemory CostModel::taken_by_slice(const StageSpan& stage, StageMemory memory) const {
    memory.in_flight = entering_bytes(stage);
    return memory;
}

std::vector<StageLoad> CostModel::skips(const std::vector<StageSpan>& stages) const {
    return graph_ ? ways_.skips(stages) : std::vector<StageLoad>();
}

int CostModel::in_flight_cap(const StageSpan& stage) const {
    if (stage.recompute && recomputation_ != Recomputation::kStages)
        return static_cast<int>(segment_entry(stage).recompute_ms.size());
    const StageMemory memory = stage_memory(stage);
    const double room = budget_bytes(stage.device) - memory.fixed;
    if (room < memory.in_flight || room < 0) return 0;
    if (memory.in_flight <= 0) return micro_batches_;
    return static_cast<int>(
        std::min(std::floor(room / memory.in_flight), static_cast<double>(micro_batches_)));
}

double CostModel::output_ms(int layer, int from, int to) const {
    return crossing_bytes(layer) * wire(from, to).ms_per_byte;
}

double CostModel::latency_ms(int from, int to) const { return wire(from, to).latency_ms; }

void CostModel::add_loads(const std::vector<StageSpan>& stages, bool named, const Plan* plan,
                          PipelineCosts& costs) const {
    ResourceTable table(cluster_, costs, named);
    const int portal = static_cast<int>(cluster_.portal);
    const auto device = [&](int stage) {
        return stage < 0 ? portal : stages[static_cast<std::size_t>(stage)].device;
    };
    const auto edge = [&](const StageLoad& load, TensorCodec codec) {
        const int from = device(load.from);
        const int to = device(load.to);
        const double floating = load.bytes - load.integer_bytes;
        const double bytes = load.integer_bytes + floating * codec_ratio(codec);
        return StageEdge{
            load.from, load.to,
            table.transfer(from, to, bytes * wire(from, to).ms_per_byte, latency_ms(from, to))};
    };
    const auto stage_of_plan = [&](int stage) -> const StagePlan* {
        return plan == nullptr || stage < 0 ? nullptr
                                            : &plan->stages[static_cast<std::size_t>(stage)];
    };
    const StageLoads loads = ways_.loads(stages, portal);
    for (const StageLoad& load : loads.values) {
        const StagePlan* from = stage_of_plan(load.from);
        costs.values.push_back(
            edge(load, from == nullptr ? TensorCodec::kNone : from->codec_forward));
    }
    for (const StageLoad& load : loads.gradients) {
        const StagePlan* from = stage_of_plan(load.from);
        costs.gradients.push_back(
            edge(load, from == nullptr ? TensorCodec::kNone : from->codec_backward));
    }
}

std::vector<std::string> CostModel::device_names(const std::vector<StageSpan>& stages,
                                                 const Placement& place) const {
    std::vector<std::string> out;
    for (int device = 0; device < place.devices(); ++device) {
        const StageSpan& first = stages[static_cast<std::size_t>(place.stage(device, 0))];
        out.push_back(cluster_.devices[static_cast<std::size_t>(first.device)].name);
    }
    return out;
}

PipelineCosts CostModel::graph_pipeline(const std::vector<StageSpan>& stages,
                                        const Placement& place, bool named,
                                        const Plan* plan) const {
    PipelineCosts costs;
    costs.micro_batches = micro_batches_;
    costs.place = place;
    costs.graph = true;
    for (const StageSpan& stage : stages) costs.stages.push_back(stage_cost(stage));
    if (named) costs.device_names = device_names(stages, place);
    add_loads(stages, named, plan, costs);
    return costs;
}

PipelineCosts CostModel::pipeline(const std::vector<StageSpan>& stages, const Placement& place,
                                  bool named) const {
    if (graph_) return graph_pipeline(stages, place, named, nullptr);
    PipelineCosts costs;
    costs.micro_batches = micro_batches_;
    costs.place = place;
    if (named) costs.device_names = device_names(stages, place);
    ResourceTable table(cluster_, costs, named);
    costs.stages.reserve(stages.size());
    costs.forward.reserve(stages.size());
    costs.backward.reserve(stages.size());
    costs.resources.reserve(2 * stages.size());
    const int portal = static_cast<int>(cluster_.portal);
    const int first = stages.front().device;
    if (first != portal)
        costs.feed =
            table.transfer(portal, first, output_ms(-1, portal, first), latency_ms(portal, first));
    for (std::size_t k = 0; k < stages.size(); ++k) {
        costs.stages.push_back(stage_cost(stages[k]));
        if (k + 1 == stages.size()) break;
        const int here = stages[k].device;
        const int next = stages[k + 1].device;
        const double occupy = output_ms(stages[k].last, here, next);
        costs.forward.push_back(table.transfer(here, next, occupy, latency_ms(here, next)));
        costs.backward.push_back(returns_gradient(stages[k].last)
                                     ? table.transfer(next, here, occupy, latency_ms(here, next))
                                     : Transfer{});
    }
    return costs;
}

void CostModel::pipeline_into(const std::vector<StageSpan>& stages, PipelineCosts& costs) const {
    const std::size_t count = stages.size();
    if (media_ || graph_) {
        costs = pipeline(stages, Placement::cyclic(static_cast<int>(count)), false);
        for (std::size_t k = 0; k < count; ++k)
            if (stages[k].recompute) costs.stages[k] = stage_cost(stages[k], 1);
        return;
    }
    costs.micro_batches = micro_batches_;
    costs.place = Placement::cyclic(static_cast<int>(count));
    costs.stages.resize(count);
    costs.forward.resize(count - 1);
    costs.backward.resize(count - 1);
    // Every direction of a cut has a resource of its own: 2k down, 2k + 1 up; the last is the
    // feed's, unless the portal is stage 1.
    costs.resources.resize(2 * count - 1);
    for (Resource& resource : costs.resources) resource.uses = 1;
    for (std::size_t k = 0; k < count; ++k) {
        costs.stages[k] = stages[k].recompute ? stage_cost(stages[k], 1) : stage_cost(stages[k]);
        if (k + 1 == count) break;
        const int here = stages[k].device;
        const int next = stages[k + 1].device;
        const Transfer down{output_ms(stages[k].last, here, next), latency_ms(here, next),
                            2 * static_cast<int>(k)};
        costs.forward[k] = down;
        costs.backward[k] = {down.occupy_ms, down.latency_ms, down.resource + 1};
        if (!returns_gradient(stages[k].last))
            costs.backward[k].occupy_ms = costs.backward[k].latency_ms = 0;
    }
    const int portal = static_cast<int>(cluster_.portal);
    const int first = stages.front().device;
    costs.feed.reset();
    if (first == portal) return;
    const bool shared = count > 1 && stages[1].device == portal;
    const int resource = shared ? costs.backward[0].resource : 2 * static_cast<int>(count) - 2;
    costs.feed = {output_ms(-1, portal, first), latency_ms(portal, first), resource};
    costs.resources[static_cast<std::size_t>(resource)].uses += shared ? 1 : 0;
}

PipelineCosts CostModel::pipeline(const Plan& plan, const std::vector<StageSpan>& stages) const {
    PipelineCosts costs = pipeline_at_full(plan, stages);
    price_segments(plan, stages, costs);
    return costs;
}

PipelineCosts CostModel::pipeline_at_full(const Plan& plan,
                                          const std::vector<StageSpan>& stages) const {
    if (has_twins(plan)) return shared_pipeline(plan, stages);
    const Placement place = placement_of(plan);
    if (graph_) return graph_pipeline(stages, place, true, &plan);
    PipelineCosts costs = pipeline(stages, place);
    for (std::size_t k = 0; k + 1 < stages.size(); ++k) {
        costs.forward[k].occupy_ms *= codec_ratio(plan.stages[k].codec_forward);
        costs.backward[k].occupy_ms *= codec_ratio(plan.stages[k + 1].codec_backward);
    }
    return costs;
}

Result<std::vector<StageSpan>> CostModel::spans(const Plan& plan, const std::string& source) const {
    std::vector<StageSpan> out;
    for (const auto& [s, holder] : held_stages(plan)) {
        const StagePlan& stage = plan.stages[s];
        const auto device = cluster_.find(holder.device);
        const auto refused = [&, s = s](const char* key, const std::string& problem) {
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: stages[{}].{}: {}", source, s, key, problem));
        };
        if (!device)
            return refused("device", fmt::format("expected a device of cluster {}, found '{}'",
                                                 cluster_.name, holder.device));
        if (stage.last_layer >= layers_)
            return refused("last_layer", fmt::format("expected at most {}, found {}", layers_ - 1,
                                                     stage.last_layer));
        if (s + 1 == plan.stages.size() && stage.last_layer != layers_ - 1)
            return refused("last_layer",
                           fmt::format("expected {}, the model's last layer, found {}", layers_ - 1,
                                       stage.last_layer));
        if (!may_cut_before(stage.first_layer))
            return refused(
                "first_layer",
                fmt::format("expected no cut before layer {}, which shares a tensor with "
                            "the one before; found one",
                            stage.first_layer));
        out.push_back({static_cast<int>(*device), stage.first_layer, stage.last_layer,
                       !holder.recomputed.empty()});
    }
    return out;
}

double CostModel::control_ms(const std::vector<StageSpan>& stages) const {
    double latency = 0;
    for (const StageSpan& stage : stages)
        latency = std::max(latency, latency_ms(static_cast<int>(cluster_.portal), stage.device));
    return 2 * latency;
}

}  // namespace ecopipe
