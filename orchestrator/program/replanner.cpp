#include "orchestrator/program/replanner.h"

#include <algorithm>

#include "core/units.h"
#include "domain/plan_index.h"
#include "orchestrator/program/planning.h"

namespace ecopipe {
namespace {

constexpr double kEffort = 0.2;  // of the usual search: training waits for it

void scale(ModelProfile& profile, double times) {
    for (LayerProfile& layer : profile.layers) {
        layer.update_ms *= times;
        for (LayerTiming& timing : layer.timing) {
            timing.forward_ms *= times;
            timing.backward_ms *= times;
            if (timing.input_gradient_ms) *timing.input_gradient_ms *= times;
            if (timing.weight_gradient_ms) *timing.weight_gradient_ms *= times;
        }
    }
}

// What the program itself needs there.
double process_mib(const std::vector<ModelProfile>& profiles, const std::string& device) {
    if (profiles.empty()) return 0;
    const auto own = std::find_if(profiles.begin(), profiles.end(),
                                  [&](const ModelProfile& each) { return each.device == device; });
    return (own != profiles.end() ? *own : profiles.front()).process_mib;
}

// What crosses a cut is compressed as the stage of that layer was told to: bytes depend on it.
void keep_codecs(const Plan& given, Plan& plan) {
    const PlanIndex index(given);
    const auto stage_of = [&](int layer) -> const StagePlan& {
        return given.stages[index.stage_of(layer).value().index()];
    };
    for (StagePlan& stage : plan.stages) {
        stage.codec_forward = stage_of(stage.last_layer).codec_forward;
        stage.codec_backward = stage_of(stage.first_layer).codec_backward;
    }
}

}  // namespace

Result<void> Replanner::have_profiles() {
    if (!options_.profiles.empty() || !options_.measure) return {};
    ECOPIPE_ASSIGN_OR_RETURN(options_.profiles, options_.measure());
    return {};
}

std::pair<Cluster, std::vector<ModelProfile>> Replanner::as_it_is(
    const std::set<std::string>& devices, const Conditions& conditions) const {
    Cluster cluster = present_part(options_.cluster, devices);
    std::vector<ModelProfile> profiles = options_.profiles;
    for (const auto& [device, mib] : conditions.tensor_mib)
        if (const auto at = cluster.find(device)) {
            double& memory_mib = cluster.devices[*at].memory_mib;
            memory_mib = std::min(memory_mib, mib + process_mib(profiles, device));
        }
    for (const auto& [device, times] : conditions.slowness) {
        const auto at = cluster.find(device);
        if (!at) continue;
        const auto own =
            std::find_if(profiles.begin(), profiles.end(),
                         [&, name = device](const auto& p) { return p.device == name; });
        if (own != profiles.end()) {
            scale(*own, times);
        } else {
            cluster.devices[*at].speed /= times;
        }
    }
    return {std::move(cluster), std::move(profiles)};
}

Result<Plan> Replanner::plan(const std::set<std::string>& devices, const Conditions& conditions) {
    if (devices.empty()) return fail(ExitCode::kUnreachable, "no device is there");
    if (options_.given && conditions.tensor_mib.empty()) {
        const PlanIndex index(*options_.given);
        const auto& wanted = index.devices();
        if (std::all_of(wanted.begin(), wanted.end(),
                        [&](const std::string& device) { return devices.contains(device); }))
            return *options_.given;
    }
    ECOPIPE_RETURN_IF_ERROR(have_profiles());
    const auto [cluster, profiles] = as_it_is(devices, conditions);
    PlanRequest request = options_.request;
    request.effort = kEffort;
    ECOPIPE_ASSIGN_OR_RETURN(Plan plan, search_plan(cluster, profiles, request));
    if (options_.given) keep_codecs(*options_.given, plan);
    if (options_.check) ECOPIPE_RETURN_IF_ERROR(options_.check(plan));
    return plan;
}

Result<double> Replanner::step_ms(const Plan& plan, const Conditions& conditions) {
    ECOPIPE_RETURN_IF_ERROR(have_profiles());
    std::set<std::string> devices;
    for (const Device& device : options_.cluster.devices) devices.insert(device.name);
    const auto [cluster, profiles] = as_it_is(devices, conditions);
    Plan priced = plan;
    ECOPIPE_RETURN_IF_ERROR(predict_plan(cluster, profiles, priced));
    return priced.predicted->step_ms + priced.predicted->control_ms;
}

double Replanner::slowest_mbps() const {
    double slowest = 0;
    const auto take = [&](double mbps) {
        if (mbps > 0 && (slowest == 0 || mbps < slowest)) slowest = mbps;
    };
    const Cluster& cluster = options_.cluster;
    for (std::size_t a = 0; a < cluster.devices.size(); ++a)
        for (std::size_t b = a + 1; b < cluster.devices.size(); ++b) take(cluster.link(a, b).mbps);
    return slowest;
}

ReplicaPlan Replanner::replicas(const Plan& plan, const std::set<std::string>& spares,
                                const std::map<int, double>& layer_bytes) {
    if (!options_.replicas) {
        ReplicaPlan none;
        none.why_not = "--replicas off";
        return none;
    }
    const Cluster& cluster = options_.cluster;
    if (!options_.links_known) {
        ReplicaPlan none;
        none.why_not = "without a cluster file nothing is known of the links";
        return none;
    }
    ReplicaRequest request;
    std::map<std::string, double> used;
    const PlanIndex index(plan);
    std::vector<std::string> order = index.devices();
    for (const std::string& device : order)
        used[device] = static_cast<double>(predicted_peak_bytes(plan, device));
    for (const auto& [layer, bytes] : layer_bytes)
        for (const std::string& device : index.holders_of(layer))
            request.state_bytes[device] += bytes;
    for (const std::string& device : order) {
        const auto stages = index.stages_of(device);
        if (std::all_of(stages.begin(), stages.end(),
                        [&](StageId stage) { return index.devices_of(stage).size() > 1; }))
            request.twins.insert(device);
    }
    order.insert(order.end(), spares.begin(), spares.end());
    for (const std::string& name : order) {
        const auto at = cluster.find(name);
        if (!at) continue;
        const double room_mib =
            cluster.devices[*at].memory_mib - process_mib(options_.profiles, name);
        request.devices.push_back({name, room_mib * kMib - used[name]});
    }
    request.step_ms = plan.predicted ? plan.predicted->step_ms : 0;
    // What a cut carries each way is what its two devices' link is busy with.
    for (std::size_t a = 0; a < cluster.devices.size(); ++a)
        for (std::size_t b = 0; b < cluster.devices.size(); ++b)
            if (a != b)
                request.links[{cluster.devices[a].name, cluster.devices[b].name}] = {
                    cluster.link(a, b).mbps, 0};
    if (!options_.profiles.empty()) {
        const ModelProfile& profile = options_.profiles.front();
        const auto load = [&](const std::string& from, const std::string& to, double bytes) {
            if (const auto link = request.links.find({from, to});
                link != request.links.end() && link->second.mbps > 0)
                link->second.busy_ms += bytes * 8 / (link->second.mbps * 1000);
        };
        for (std::uint32_t s = 0; s < index.stage_count(); ++s) {
            const auto last = static_cast<std::size_t>(index.layers_of({s}).last);
            if (last >= profile.layers.size()) continue;
            const double bytes =
                static_cast<double>(profile.layers[last].output_bytes_per_sample) * plan.batch;
            for (const StageId consumer : index.consumers_of({s}))
                for (const std::string& from : index.devices_of({s}))
                    for (const std::string& to : index.devices_of(consumer)) {
                        load(from, to, bytes);
                        load(to, from, bytes);
                    }
        }
    }
    return place_replicas(request);
}

}  // namespace ecopipe
