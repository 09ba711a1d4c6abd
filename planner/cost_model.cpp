#include "planner/cost_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/check.h"

namespace ecopipe {
namespace {

constexpr double kMib = 1024.0 * 1024.0;

double between(double a, double b, double t) { return a + (b - a) * t; }

std::optional<double> between(const std::optional<double>& a, const std::optional<double>& b,
                              double t) {
    if (!a || !b) return std::nullopt;
    return between(*a, *b, t);
}

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

double sum(const std::vector<double>& prefix, const StageSpan& stage) {
    return prefix[static_cast<std::size_t>(stage.last) + 1] -
           prefix[static_cast<std::size_t>(stage.first)];
}

// What a codec leaves of a float32 tensor's bytes.
double codec_ratio(const std::string& codec) {
    if (codec == "fp16" || codec == "bf16") return 0.5;
    return codec == "int8" ? 0.25 : 1.0;
}

}  // namespace

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
    return LayerTiming{micro_batch, between(low.forward_ms, above->forward_ms, t),
                       between(low.backward_ms, above->backward_ms, t),
                       between(low.input_gradient_ms, above->input_gradient_ms, t),
                       between(low.weight_gradient_ms, above->weight_gradient_ms, t)};
}

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

Result<CostModel::Prefix> CostModel::make_prefix(const ModelProfile& profile) const {
    Prefix out;
    std::vector<double> workspace;
    for (auto* sums : {&out.forward, &out.backward, &out.input_gradient, &out.weight_gradient,
                       &out.update, &out.parameters, &out.stash})
        sums->push_back(0);
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
        const auto add = [](std::vector<double>& sums, double value) {
            sums.push_back(sums.back() + value);
        };
        add(out.forward, timing->forward_ms);
        add(out.backward, timing->backward_ms);
        add(out.input_gradient, timing->input_gradient_ms.value_or(0));
        add(out.weight_gradient, timing->weight_gradient_ms.value_or(0));
        add(out.update, layer.update_ms);
        add(out.parameters, static_cast<double>(layer.parameter_bytes));
        add(out.stash, static_cast<double>(layer.stash_bytes_per_sample) * micro_batch_);
        workspace.push_back(static_cast<double>(layer.workspace_bytes_per_sample) * micro_batch_);
    }
    out.workspace_max = range_maxima(std::move(workspace));
    return out;
}

Result<CostModel> CostModel::make(const Cluster& cluster, const ResolvedProfiles& resolved,
                                  int batch, int micro_batches) {
    CostModel out;
    out.cluster_ = cluster;
    out.micro_batches_ = micro_batches;
    out.micro_batch_ = (batch + micro_batches - 1) / micro_batches;
    const ModelProfile& shape = resolved.profiles.front();
    out.layers_ = static_cast<int>(shape.layers.size());
    out.output_bytes_.push_back(static_cast<double>(shape.input_bytes_per_sample) *
                                out.micro_batch_);
    for (const LayerProfile& layer : shape.layers) {
        out.joined_.push_back(layer.joined_to_previous ? 1 : 0);
        out.output_bytes_.push_back(static_cast<double>(layer.output_bytes_per_sample) *
                                    out.micro_batch_);
    }
    std::vector<std::shared_ptr<const Prefix>> prefixes(resolved.profiles.size());
    out.split_ = true;
    for (std::size_t d = 0; d < cluster.devices.size(); ++d) {
        const ResolvedProfiles::Source& source = resolved.of_device[d];
        const ModelProfile& profile = resolved.profiles[source.profile];
        if (!prefixes[source.profile]) {
            ECOPIPE_ASSIGN_OR_RETURN(Prefix prefix, out.make_prefix(profile));
            prefixes[source.profile] = std::make_shared<const Prefix>(std::move(prefix));
        }
        for (const LayerProfile& layer : profile.layers)
            out.split_ &= timing_at(layer, out.micro_batch_)->weight_gradient_ms.has_value();
        out.device_.push_back({prefixes[source.profile], source.speed,
                               (cluster.devices[d].memory_mib - profile.process_mib) * kMib,
                               profile.optimizer_slots});
    }
    return out;
}

StageCost CostModel::stage_cost(const StageSpan& stage) const {
    const DeviceCost& device = device_[static_cast<std::size_t>(stage.device)];
    const Prefix& prefix = *device.prefix;
    StageCost out;
    out.forward_ms = sum(prefix.forward, stage) / device.speed;
    out.recompute_ms = stage.recompute ? out.forward_ms : 0;
    out.backward_ms = sum(prefix.backward, stage) / device.speed + out.recompute_ms;
    out.input_gradient_ms = sum(prefix.input_gradient, stage) / device.speed;
    out.weight_gradient_ms = sum(prefix.weight_gradient, stage) / device.speed;
    out.update_ms = sum(prefix.update, stage) / device.speed;
    return out;
}

StageMemory CostModel::stage_memory(const StageSpan& stage) const {
    const DeviceCost& device = device_[static_cast<std::size_t>(stage.device)];
    const Prefix& prefix = *device.prefix;
    const double stash = sum(prefix.stash, stage);
    StageMemory out;
    out.fixed = sum(prefix.parameters, stage) * (2 + device.slots) +
                range_max(prefix.workspace_max, static_cast<std::size_t>(stage.first),
                          static_cast<std::size_t>(stage.last));
    out.in_flight = stage.recompute ? output_bytes_[static_cast<std::size_t>(stage.first)] : stash;
    if (stage.recompute) out.fixed += stash;
    return out;
}

int CostModel::in_flight_cap(const StageSpan& stage) const {
    const StageMemory memory = stage_memory(stage);
    const double room = budget_bytes(stage.device) - memory.fixed;
    if (room < memory.in_flight || room < 0) return 0;
    if (memory.in_flight <= 0) return micro_batches_;
    return static_cast<int>(
        std::min(std::floor(room / memory.in_flight), static_cast<double>(micro_batches_)));
}

double CostModel::output_ms(int layer, int from, int to) const {
    if (from == to) return 0;
    const Link& link = cluster_.link(static_cast<std::size_t>(from), static_cast<std::size_t>(to));
    return output_bytes_[static_cast<std::size_t>(layer + 1)] * 8 / (link.mbps * 1000);
}

double CostModel::latency_ms(int from, int to) const {
    if (from == to) return 0;
    return cluster_.link(static_cast<std::size_t>(from), static_cast<std::size_t>(to)).latency_ms;
}

namespace {

// Gives each direction between two devices, and each medium, its place in PipelineCosts::resources.
class ResourceTable {
  public:
    ResourceTable(const Cluster& cluster, PipelineCosts& costs)
        : cluster_(cluster), costs_(costs) {}
    Transfer transfer(int from, int to, double occupy_ms, double latency_ms) {
        if (from == to) return {};
        const auto a = static_cast<std::size_t>(from);
        const auto b = static_cast<std::size_t>(to);
        const std::string& medium = cluster_.link(a, b).medium;
        const std::string name =
            medium.empty()
                ? fmt::format("link {}-{}", cluster_.devices[a].name, cluster_.devices[b].name)
                : "medium " + medium;
        const std::string key = medium.empty() ? fmt::format("{}>{}", from, to) : name;
        const auto [found, fresh] = index_.emplace(key, static_cast<int>(costs_.resources.size()));
        if (fresh) {
            costs_.resources.push_back({name, 1});
        } else {
            costs_.resources[static_cast<std::size_t>(found->second)].uses += 1;
        }
        return {occupy_ms, latency_ms, found->second};
    }

  private:
    const Cluster& cluster_;
    PipelineCosts& costs_;
    std::map<std::string, int> index_;
};

}  // namespace

PipelineCosts CostModel::pipeline(const std::vector<StageSpan>& stages, int devices) const {
    PipelineCosts costs;
    costs.micro_batches = micro_batches_;
    costs.devices = devices;
    ResourceTable table(cluster_, costs);
    const int portal = static_cast<int>(cluster_.portal);
    const int first = stages.front().device;
    if (first != portal)
        costs.feed =
            table.transfer(portal, first, output_ms(-1, portal, first), latency_ms(portal, first));
    for (std::size_t k = 0; k < stages.size(); ++k) {
        costs.stages.push_back(stage_cost(stages[k]));
        if (k < static_cast<std::size_t>(devices))
            costs.device_names.push_back(
                cluster_.devices[static_cast<std::size_t>(stages[k].device)].name);
        if (k + 1 == stages.size()) break;
        const int here = stages[k].device;
        const int next = stages[k + 1].device;
        const double occupy = output_ms(stages[k].last, here, next);
        costs.forward.push_back(table.transfer(here, next, occupy, latency_ms(here, next)));
        costs.backward.push_back(table.transfer(next, here, occupy, latency_ms(here, next)));
    }
    return costs;
}

PipelineCosts CostModel::pipeline(const Plan& plan, const std::vector<StageSpan>& stages) const {
    PipelineCosts costs = pipeline(stages, static_cast<int>(plan_devices(plan).size()));
    for (std::size_t k = 0; k + 1 < stages.size(); ++k) {
        costs.forward[k].occupy_ms *= codec_ratio(plan.stages[k].codec_forward);
        costs.backward[k].occupy_ms *= codec_ratio(plan.stages[k + 1].codec_backward);
    }
    return costs;
}

Result<std::vector<StageSpan>> CostModel::spans(const Plan& plan, const std::string& source) const {
    std::vector<StageSpan> out;
    for (std::size_t s = 0; s < plan.stages.size(); ++s) {
        const StagePlan& stage = plan.stages[s];
        const auto device = cluster_.find(stage.device);
        const auto refused = [&](const char* key, const std::string& problem) {
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: stages[{}].{}: {}", source, s, key, problem));
        };
        if (!device)
            return refused("device", fmt::format("expected a device of cluster {}, found '{}'",
                                                 cluster_.name, stage.device));
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
        out.push_back(
            {static_cast<int>(*device), stage.first_layer, stage.last_layer, stage.recompute});
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
