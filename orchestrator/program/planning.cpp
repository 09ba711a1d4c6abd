#include "orchestrator/program/planning.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "core/log.h"
#include "domain/plan_index.h"
#include "orchestrator/program/local_launcher.h"
#include "planner/cost/memory_check.h"
#include "planner/schedule/plan_file.h"
#include "planner/search/partition.h"
#include "stage_runtime/engine/run/profiler.h"

namespace ecopipe {
namespace {

constexpr double kAutoSecondsPerSize = 0.2;  // several sizes are measured, before anything runs

// The least power of two that the model trains on: batch norm needs two values a channel.
Result<int> smallest_micro_batch(const ModelSpec& spec, const LossSpec& loss, const Dataset& train,
                                 int batch) {
    int size = 1;
    for (; size < batch; size *= 2) {
        ECOPIPE_ASSIGN_OR_RETURN(const Batch samples, first_samples(train, size));
        if (try_model(spec, loss, samples)) break;
    }
    return size;
}

// How many bytes of each layer's parameters are trained.
std::vector<std::uint64_t> trainable_bytes(const ModelInfo& info) {
    std::vector<std::uint64_t> bytes(info.layers.size(), 0);
    for (const TensorInfo& tensor : info.tensors)
        if (tensor.trainable && tensor.same_as.empty())
            bytes[static_cast<std::size_t>(tensor.layer)] +=
                checked_bytes(tensor.dtype, tensor.shape).value_or(0);
    return bytes;
}

}  // namespace

Result<void> adopt_plan(const Plan& plan, const ModelSpec& spec, const ModelInfo& info,
                        TrainOptions& options) {
    const auto contradiction = [&](const std::string& what, const auto& in_plan,
                                   const auto& found) {
        return fail(ExitCode::kUsage, fmt::format("{}: {} is {} in the plan, {} here",
                                                  options.plan_file, what, in_plan, found));
    };
    const auto layers = static_cast<int>(info.layers.size());
    if (plan.model != spec.id())
        return fail(ExitCode::kBadFile, fmt::format("{}: model: expected {}, found {}",
                                                    options.plan_file, spec.id(), plan.model));
    if (plan.stages.back().last_layer + 1 != layers)
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: stages: expected {} layers as the model has, found {}",
                                options.plan_file, layers, plan.stages.back().last_layer + 1));
    for (const StagePlan& stage : plan.stages) {
        if (info.layers[static_cast<std::size_t>(stage.first_layer)].joined_to_previous)
            return fail(
                ExitCode::kBadFile,
                fmt::format("{}: stages: layer {} shares a parameter with an earlier layer and "
                            "cannot start a stage",
                            options.plan_file, stage.first_layer));
        for (int layer = stage.first_layer; !stage.twins.empty() && layer <= stage.last_layer;
             ++layer)
            if (info.layers[static_cast<std::size_t>(layer)].one_holder)
                return fail(
                    ExitCode::kBadFile,
                    fmt::format("{}: stages: layer {} changes buffers in forward by itself and "
                                "cannot have twins; export the model as a graph",
                                options.plan_file, layer));
    }
    if (options.given.contains("batch") && options.trainer.batch != plan.batch)
        return contradiction("--batch", plan.batch, options.trainer.batch);
    if (options.given.contains("micro-batches") &&
        options.trainer.micro_batches != plan.micro_batches)
        return contradiction("--micro-batches", plan.micro_batches, options.trainer.micro_batches);
    if (options.given.contains("sum-blocks") && options.sum_blocks != plan.sum_blocks)
        return contradiction("--sum-blocks", plan.sum_blocks, options.sum_blocks);
    if (options.given.contains("schedule") && options.schedule != "auto" &&
        options.schedule != plan.schedule)
        return contradiction("--schedule", plan.schedule, options.schedule);
    options.trainer.batch = plan.batch;
    options.trainer.micro_batches = plan.micro_batches;
    options.sum_blocks = plan.sum_blocks;
    return {};
}

Result<void> check_executable(const Plan& plan) {
    ECOPIPE_ASSIGN_OR_RETURN(const auto lists, plan_actions(plan, plan.micro_batches));
    const PlanIndex index(plan);
    for (std::size_t d = 0; d < lists.size(); ++d) {
        const std::string& device = index.devices()[d];
        std::map<std::pair<int, bool>, int> next;  // by slice, and forward or weight gradient
        for (const Action& action : lists[d]) {
            if (action.kind == ActionKind::kInputGradient) continue;
            const bool forward = action.kind == ActionKind::kForward;
            const StageId stage = index.stages_of(device)[static_cast<std::size_t>(action.slice)];
            int& expected = next[{action.slice, forward}];
            while (index.owner_of(stage, static_cast<std::uint32_t>(expected)) != device)
                ++expected;
            if (action.micro_batch != expected)
                return fail(
                    ExitCode::kUsage,
                    fmt::format("schedule {}: {}{} stands where {}{} was expected: stages "
                                "run micro-batches in order, so that sums have the same "
                                "bits under every schedule",
                                plan.schedule, static_cast<char>(action.kind), action.micro_batch,
                                static_cast<char>(action.kind), expected));
            ++expected;
        }
    }
    return {};
}

Result<void> price_plan(const Cluster& cluster, const std::vector<ModelProfile>& profiles,
                        Plan& plan) {
    if (const auto priced = predict_plan(cluster, profiles, plan); !priced) {
        log_warn("the plan's time and memory are not checked: {}", priced.error().message);
        return {};
    }
    return check_memory(cluster, profiles, plan);
}

std::optional<double> micro_batch_overhead_ms(const ModelProfile& profile) {
    double fixed = 0;
    for (const LayerProfile& layer : profile.layers) {
        if (layer.timing.size() < 2) return std::nullopt;
        const LayerTiming& a = layer.timing[0];
        const LayerTiming& b = layer.timing[1];
        const double time_a = a.forward_ms + a.backward_ms;
        const double slope =
            (b.forward_ms + b.backward_ms - time_a) / (b.micro_batch - a.micro_batch);
        fixed += std::max(0.0, time_a - slope * a.micro_batch);
    }
    return fixed;
}

Result<std::vector<ModelProfile>> gather_profiles(const Cluster& cluster,
                                                  const std::string& cluster_file,
                                                  const ModelSpec& spec, const ModelInfo& info,
                                                  const Dataset& train,
                                                  const TrainOptions& options) {
    std::vector<ModelProfile> profiles;
    const auto directory = std::filesystem::path(cluster_file).parent_path();
    bool some_without = false;
    for (const Device& device : cluster.devices) {
        if (device.profile.empty()) {
            some_without = true;
            continue;
        }
        const std::string path = (directory / device.profile).string();
        ECOPIPE_ASSIGN_OR_RETURN(ModelProfile profile, read_profile(path));
        if (profile.model != spec.id() ||
            (!profile.partial && profile.layers.size() != info.layers.size()))
            return fail(
                ExitCode::kBadFile,
                fmt::format("{}: expected a profile of {} with {} layers, found {} with {}", path,
                            spec.id(), info.layers.size(), profile.model, profile.layers.size()));
        profile.device = device.name;
        profile.optimizer_slots = options.optimizer.slots();
        if (!profile.partial) {
            ECOPIPE_RETURN_IF_ERROR(profile.train_only(trainable_bytes(info)));
            profile.optimize_with(options.optimizer.slots(),
                                  optimizer_bytes(info, options.optimizer));
        }
        profiles.push_back(std::move(profile));
    }
    if (!some_without) return profiles;
    ProfileRequest request;
    request.spec = spec;
    request.optimizer = options.optimizer;
    request.loss = options.trainer.loss;
    request.batch = [&train](int samples) { return first_samples(train, samples); };
    const int batch = options.trainer.batch;
    const int parts = options.trainer.micro_batches;
    if (options.auto_micro_batches) {
        request.micro_batches.clear();
        ECOPIPE_ASSIGN_OR_RETURN(int size,
                                 smallest_micro_batch(spec, options.trainer.loss, train, batch));
        for (; size < batch; size *= 2) request.micro_batches.push_back(size);
        request.micro_batches.push_back(batch);
        request.seconds_per_size = kAutoSecondsPerSize;
    } else {
        request.micro_batches = {(batch + parts - 1) / parts};
    }
    request.device = "measured here";
    request.slowdown = options.local ? mean_slowdown(cluster) : 1;
    request.threads = options.threads;
    log_info("no profile for every device: measuring {} at micro-batch {}", spec.id(),
             fmt::join(request.micro_batches, ", "));
    ECOPIPE_ASSIGN_OR_RETURN(ModelProfile measured, profile_model(request));
    profiles.insert(profiles.begin(), std::move(measured));
    return profiles;
}

Cluster present_part(const Cluster& cluster, const std::set<std::string>& present) {
    Cluster part = cluster;
    part.devices.clear();
    part.links.clear();
    std::vector<std::size_t> kept;
    for (std::size_t i = 0; i < cluster.devices.size(); ++i) {
        if (!present.contains(cluster.devices[i].name)) continue;
        kept.push_back(i);
        part.devices.push_back(cluster.devices[i]);
    }
    part.portal = 0;
    for (std::size_t a = 0; a < kept.size(); ++a) {
        if (kept[a] == cluster.portal) part.portal = a;
        for (std::size_t b = a + 1; b < kept.size(); ++b)
            part.links[{a, b}] = cluster.link(kept[a], kept[b]);
    }
    return part;
}

Cluster cluster_of_plan(const Plan& plan) {
    Cluster cluster;
    cluster.name = "plan";
    for (const std::string& name : PlanIndex(plan).devices()) {
        Device device;
        device.name = name;
        device.memory_mib = 1 << 20;
        cluster.devices.push_back(std::move(device));
    }
    return cluster;
}

}  // namespace ecopipe
