#include "planner/schedule/plan_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/files.h"
#include "core/log.h"
#include "core/schema.h"
#include "core/strict_json.h"
#include "domain/limits.h"
#include "domain/plan_index.h"
#include "domain/sum_blocks.h"
#include "planner/schedule/holder_actions.h"
#include "planner/schedule/registry.h"
#include "planner/schedule/schedule_check.h"

namespace ecopipe {
namespace {

constexpr Range<double> kMs{0, 1e15};

bool has_actions(const Plan& plan) {
    return std::any_of(plan.stages.begin(), plan.stages.end(),
                       [](const StagePlan& stage) { return stage.actions.has_value(); });
}

TensorCodec read_codec(Fields& fields, const std::string& key) {
    const std::string name = fields.text(key, "fp32");
    const std::optional<TensorCodec> codec = codec_named(name);
    if (!codec)
        fields.refuse(
            key, fmt::format("expected fp32, fp16, bf16 or int8, found '{}'", printable(name)));
    return codec.value_or(TensorCodec::kNone);
}

std::vector<int> read_blocks(Fields& fields) {
    std::vector<int> blocks;
    for (const std::int64_t block : fields.integers("blocks", {0, kSumBlocksMax - 1}))
        blocks.push_back(static_cast<int>(block));
    std::sort(blocks.begin(), blocks.end());
    return blocks;
}

// `recompute` alone is of the whole stage.
Segments read_segments(Fields& fields, LayerRange layers) {
    const bool recompute = fields.flag("recompute", false);
    if (!fields.has("recompute_layers")) return recompute ? Segments{layers} : Segments{};
    if (!recompute)
        fields.refuse("recompute", "expected true beside recompute_layers, found false");
    Segments segments;
    int next = layers.first;
    for (Fields& row : fields.objects("recompute_layers")) {
        LayerRange segment;
        segment.first = static_cast<int>(row.integer("first_layer", {next, layers.last}));
        segment.last = static_cast<int>(row.integer("last_layer", {segment.first, layers.last}));
        row.no_others();
        segments.push_back(segment);
        next = segment.last + 1;
    }
    if (segments.empty()) fields.refuse("recompute_layers", "expected some, found none");
    return segments;
}

StageHolder read_twin(Fields& fields, LayerRange layers) {
    StageHolder twin;
    twin.device = fields.text("device");
    twin.blocks = read_blocks(fields);
    twin.in_flight = static_cast<int>(fields.integer("in_flight", {1, kMicroBatchMax}));
    twin.recomputed = read_segments(fields, layers);
    if (fields.has("peak_bytes"))
        twin.peak_bytes = static_cast<std::uint64_t>(fields.integer("peak_bytes", {0, INT64_MAX}));
    fields.no_others();
    return twin;
}

StagePlan read_stage(Fields& fields, int first_layer) {
    StagePlan stage;
    stage.device = fields.text("device");
    stage.first_layer = static_cast<int>(fields.integer("first_layer", {0, kLayersMax - 1}));
    stage.last_layer = static_cast<int>(fields.integer("last_layer", {0, kLayersMax - 1}));
    stage.in_flight = static_cast<int>(fields.integer("in_flight", {1, kMicroBatchMax}));
    const LayerRange layers{stage.first_layer, std::max(stage.first_layer, stage.last_layer)};
    stage.recomputed = read_segments(fields, layers);
    if (fields.has("peak_bytes"))
        stage.peak_bytes = static_cast<std::uint64_t>(fields.integer("peak_bytes", {0, INT64_MAX}));
    stage.codec_forward = read_codec(fields, "codec_forward");
    stage.codec_backward = read_codec(fields, "codec_backward");
    if (fields.has("actions")) stage.actions = fields.text("actions");
    if (fields.has("blocks")) stage.blocks = read_blocks(fields);
    if (fields.has("twins"))
        for (Fields& twin : fields.objects("twins")) stage.twins.push_back(read_twin(twin, layers));
    fields.no_others();
    if (stage.first_layer != first_layer)
        fields.refuse("first_layer",
                      fmt::format("expected {}, found {}", first_layer, stage.first_layer));
    if (stage.last_layer < stage.first_layer)
        fields.refuse("last_layer", fmt::format("expected at least first_layer ({}), found {}",
                                                stage.first_layer, stage.last_layer));
    return stage;
}

Prediction read_prediction(Fields fields) {
    Prediction out;
    out.step_ms = fields.number("step_ms", kMs);
    out.control_ms = fields.number("control_ms", kMs, 0);
    out.lower_bound_ms = fields.number("lower_bound_ms", kMs, 0);
    out.bound_by = fields.text("bound_by", "");
    out.cluster_bound_ms = fields.number("cluster_bound_ms", kMs, 0);
    out.bubble_fraction = fields.number("bubble_fraction", {0, 1}, 0);
    fields.no_others();
    return out;
}

void read_alternatives(Fields fields, Plan& plan) {
    if (fields.has("single_device_ms"))
        plan.single_device =
            SingleDevice{fields.number("single_device_ms", kMs), fields.text("single_device", ""),
                         static_cast<int>(fields.integer("single_device_threads", {1, 4096}, 1))};
    if (fields.has("pipeline_ms")) plan.pipeline_ms = fields.number("pipeline_ms", kMs);
    if (fields.has("data_parallel_ms"))
        plan.data_parallel_ms = fields.number("data_parallel_ms", kMs);
    if (fields.has("what_if"))
        for (Fields& row : fields.objects("what_if")) {
            plan.what_if.push_back({row.text("change"), std::nullopt});
            if (row.has("step_ms")) plan.what_if.back().step_ms = row.number("step_ms", kMs);
            row.no_others();
        }
    fields.no_others();
}

void read_memory(Fields fields, Plan& plan) {
    for (const std::string& device : fields.keys()) {
        Fields uses = fields.object(device);
        MemoryByUse& memory = plan.memory[device];
        for (const MemoryUse use : kAllMemoryUses)
            memory[use] = static_cast<std::uint64_t>(
                uses.integer(std::string(memory_use_name(use)), {0, INT64_MAX / 16}, 0));
        uses.no_others();
    }
    fields.no_others();
}

void read_frontiers(Fields fields, Plan& plan) {
    for (const std::string& device : fields.keys())
        for (Fields& row : fields.objects(device)) {
            MemoryPoint point;
            point.peak_bytes =
                static_cast<std::uint64_t>(row.integer("peak_bytes", {0, INT64_MAX / 16}));
            point.recompute_ms = row.number("recompute_ms", kMs);
            point.recomputed = read_segments(row, {0, plan.stages.back().last_layer});
            row.no_others();
            plan.frontiers[device].push_back(std::move(point));
        }
    fields.no_others();
}

// Whether the stages lie as the schedule has them; of actions of one's own they may lie anyhow.
Result<void> check_placement(const Plan& plan, const std::string& source) {
    if (has_actions(plan)) return {};
    const Placement place = placement_of(plan);
    const Schedule* schedule = find_schedule(plan.schedule);
    const Placing placing = schedule == nullptr ? Placing::kOneEach : schedule->placing;
    const int slices = place.stages() / place.devices();
    if (schedule == nullptr ? place.one_each() : place == schedule->place(place.devices(), slices))
        return {};
    return fail(
        ExitCode::kBadFile,
        fmt::format("{}: stages: expected {}, found {}", source,
                    placing == Placing::kOneEach  ? "a device of its own for every stage"
                    : placing == Placing::kCyclic ? "every device equally often in one cyclic order"
                                                  : "every device twice, there and back",
                    placing == Placing::kFolded ? "another order" : "a device again"));
}

Result<void> check_in_flight(const Plan& plan, const std::string& source) {
    for (std::size_t s = 1; s < plan.stages.size(); ++s) {
        const int before = std::min(plan.stages[s - 1].in_flight, plan.micro_batches);
        const int here = std::min(plan.stages[s].in_flight, plan.micro_batches);
        if (here > before)
            return fail(
                ExitCode::kBadFile,
                fmt::format(
                    "{}: stages[{}].in_flight: expected at most {} (that of stage {}, {}), or the "
                    "pipeline deadlocks; found {} (stage {}, {})",
                    source, s, before, s - 1, plan.stages[s - 1].device, here, s,
                    plan.stages[s].device));
    }
    return {};
}

// The users' own lists in device order, with their places. A device's list stands in its first
// stage.
Result<ScheduleText> own_schedule(const Plan& plan, const std::string& source) {
    ScheduleText out;
    out.placement = placement_of(plan);
    for (std::size_t s = 0; s < plan.stages.size(); ++s) {
        const std::string place = fmt::format("stages[{}].actions", s);
        const auto& actions = plan.stages[s].actions;
        const bool first = out.placement->slice(static_cast<int>(s)) == 0;
        if (first && !actions)
            return fail(
                ExitCode::kBadFile,
                fmt::format(
                    "{}: {}: expected actions in every device's first stage or in none, found none",
                    source, place));
        if (!first && actions)
            return fail(
                ExitCode::kBadFile,
                fmt::format(
                    "{}: {}: expected a device's actions in its first stage alone, found more",
                    source, place));
        if (!first) continue;
        ECOPIPE_ASSIGN_OR_RETURN(ActionList list, parse_actions(*actions, source + ": " + place));
        out.devices.push_back(std::move(list));
        out.places.push_back(place);
    }
    return out;
}

Result<void> check_own_actions(const Plan& plan, const std::string& source) {
    ECOPIPE_ASSIGN_OR_RETURN(const ScheduleText text, own_schedule(plan, source));
    ECOPIPE_ASSIGN_OR_RETURN(const ScheduleFacts facts, check_schedule(text, source));
    if (facts.micro_batches != plan.micro_batches)
        return fail(
            ExitCode::kBadFile,
            fmt::format("{}: stages[0].actions: expected actions of {} micro-batches, found {}",
                        source, plan.micro_batches, facts.micro_batches));
    for (std::size_t s = 0; s < plan.stages.size(); ++s)
        if (!plan.stages[s].recomputed.empty() && facts.split_backward)
            return fail(
                ExitCode::kBadFile,
                fmt::format(
                    "{}: stages[{}].recompute: expected false with input and weight gradients "
                    "apart, found true",
                    source, s));
    return {};
}

Result<void> check_named_schedule(const Plan& plan, const std::string& source) {
    const Schedule* schedule = find_schedule(plan.schedule);
    if (schedule == nullptr)
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: schedule: expected {} (or actions in the stages), found '{}'",
                                source, schedule_names(), printable(plan.schedule)));
    if (schedule->splits_backward)
        for (std::size_t s = 0; s < plan.stages.size(); ++s)
            if (!plan.stages[s].recomputed.empty())
                return fail(
                    ExitCode::kBadFile,
                    fmt::format("{}: stages[{}].recompute: expected false under {}, found true",
                                source, s, schedule->name));
    // What lists of actions hold follows from them.
    if (schedule->in_flight == InFlightRule::kByActions) return {};
    return check_in_flight(plan, source);
}

void add_segments(const Segments& segments, LayerRange layers, OrderedJson& out) {
    out["recompute"] = !segments.empty();
    if (segments.empty() || segments == Segments{layers}) return;
    for (const LayerRange& segment : segments)
        out["recompute_layers"].push_back(
            {{"first_layer", segment.first}, {"last_layer", segment.last}});
}

OrderedJson stage_json(const StagePlan& stage) {
    OrderedJson out = {{"device", stage.device},
                       {"first_layer", stage.first_layer},
                       {"last_layer", stage.last_layer},
                       {"in_flight", stage.in_flight}};
    const LayerRange layers{stage.first_layer, stage.last_layer};
    add_segments(stage.recomputed, layers, out);
    if (stage.peak_bytes) out["peak_bytes"] = *stage.peak_bytes;
    if (stage.codec_forward != TensorCodec::kNone)
        out["codec_forward"] = codec_name(stage.codec_forward);
    if (stage.codec_backward != TensorCodec::kNone)
        out["codec_backward"] = codec_name(stage.codec_backward);
    if (stage.actions) out["actions"] = *stage.actions;
    if (!stage.blocks.empty()) out["blocks"] = stage.blocks;
    for (const StageHolder& twin : stage.twins) {
        OrderedJson json = {
            {"device", twin.device}, {"blocks", twin.blocks}, {"in_flight", twin.in_flight}};
        add_segments(twin.recomputed, layers, json);
        if (twin.peak_bytes) json["peak_bytes"] = *twin.peak_bytes;
        out["twins"].push_back(std::move(json));
    }
    return out;
}

OrderedJson prediction_json(const Prediction& predicted) {
    return {{"step_ms", predicted.step_ms},
            {"control_ms", predicted.control_ms},
            {"lower_bound_ms", predicted.lower_bound_ms},
            {"bound_by", predicted.bound_by},
            {"cluster_bound_ms", predicted.cluster_bound_ms},
            {"bubble_fraction", predicted.bubble_fraction}};
}

OrderedJson memory_json(const Plan& plan) {
    OrderedJson out = OrderedJson::object();
    for (const auto& [device, memory] : plan.memory)
        for (const MemoryUse use : kAllMemoryUses)
            if (memory[use] > 0) out[device][std::string(memory_use_name(use))] = memory[use];
    return out;
}

OrderedJson frontiers_json(const Plan& plan) {
    OrderedJson out = OrderedJson::object();
    for (const auto& [device, points] : plan.frontiers)
        for (const MemoryPoint& point : points) {
            OrderedJson json = {{"peak_bytes", point.peak_bytes},
                                {"recompute_ms", point.recompute_ms}};
            add_segments(point.recomputed, {0, plan.stages.back().last_layer}, json);
            out[device].push_back(std::move(json));
        }
    return out;
}

OrderedJson alternatives_json(const Plan& plan) {
    OrderedJson out = OrderedJson::object();
    if (plan.single_device) {
        out["single_device_ms"] = plan.single_device->step_ms;
        // Plans of before this was said have no name.
        if (!plan.single_device->device.empty()) out["single_device"] = plan.single_device->device;
        out["single_device_threads"] = plan.single_device->threads;
    }
    if (plan.pipeline_ms) out["pipeline_ms"] = *plan.pipeline_ms;
    if (plan.data_parallel_ms) out["data_parallel_ms"] = *plan.data_parallel_ms;
    for (const WhatIf& row : plan.what_if) {
        OrderedJson json = {{"change", row.change}};
        if (row.step_ms) json["step_ms"] = *row.step_ms;
        out["what_if"].push_back(std::move(json));
    }
    return out;
}

}  // namespace

Result<void> check_plan(const Plan& plan, const std::string& source) {
    if (!is_sum_blocks(plan.sum_blocks) || plan.sum_blocks > plan.micro_batches)
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: sum_blocks: expected a power of two, at most micro_batches "
                                "({}), found {}",
                                source, plan.micro_batches, plan.sum_blocks));
    if (has_twins(plan)) return check_holders(plan, source);
    ECOPIPE_RETURN_IF_ERROR(check_placement(plan, source));
    return has_actions(plan) ? check_own_actions(plan, source) : check_named_schedule(plan, source);
}

Result<Plan> parse_plan(std::string_view text, const std::string& source) {
    ECOPIPE_ASSIGN_OR_RETURN(Json json, parse_json(text, source));
    ECOPIPE_RETURN_IF_ERROR(check_schema(json, "ecopipe.plan", 1, source));
    Document document(std::move(json), source);
    Fields root = document.root();
    Plan plan;
    static_cast<void>(root.text("schema"));
    plan.model = root.text("model");
    plan.batch = static_cast<int>(root.integer("batch", {1, 1 << 24}));
    plan.micro_batches = static_cast<int>(root.integer("micro_batches", {1, kMicroBatchMax}));
    plan.schedule = root.text("schedule");
    plan.sum_blocks = static_cast<int>(root.integer("sum_blocks", {1, kSumBlocksMax}, 1));
    for (Fields& fields : root.objects("stages"))
        plan.stages.push_back(
            read_stage(fields, plan.stages.empty() ? 0 : plan.stages.back().last_layer + 1));
    if (plan.stages.empty()) root.refuse("stages", "expected at least one stage, found none");
    if (root.has("predicted")) plan.predicted = read_prediction(root.object("predicted"));
    if (root.has("memory")) read_memory(root.object("memory"), plan);
    if (root.has("frontiers")) read_frontiers(root.object("frontiers"), plan);
    if (root.has("alternatives")) read_alternatives(root.object("alternatives"), plan);
    root.no_others();
    ECOPIPE_RETURN_IF_ERROR(document.finish());
    ECOPIPE_RETURN_IF_ERROR(check_plan(plan, source));
    return plan;
}

Result<Plan> read_plan(const std::string& path) {
    ECOPIPE_ASSIGN_OR_RETURN(const std::string text, read_file(path, kConfigBytesMax));
    return parse_plan(text, path);
}

std::string plan_text(const Plan& plan) {
    OrderedJson out = {{"schema", "ecopipe.plan/1"},
                       {"model", plan.model},
                       {"batch", plan.batch},
                       {"micro_batches", plan.micro_batches},
                       {"schedule", plan.schedule}};
    if (plan.sum_blocks != 1) out["sum_blocks"] = plan.sum_blocks;
    out["stages"] = OrderedJson::array();
    for (const StagePlan& stage : plan.stages) out["stages"].push_back(stage_json(stage));
    if (plan.predicted) out["predicted"] = prediction_json(*plan.predicted);
    if (!plan.memory.empty()) out["memory"] = memory_json(plan);
    if (!plan.frontiers.empty()) out["frontiers"] = frontiers_json(plan);
    if (OrderedJson alternatives = alternatives_json(plan); !alternatives.empty())
        out["alternatives"] = std::move(alternatives);
    return out.dump(1) + "\n";
}

int micro_batches_in_flight(const Plan& plan, std::size_t stage) {
    const Schedule* schedule = find_schedule(plan.schedule);
    if (schedule != nullptr && schedule->holds_all() && !has_actions(plan))
        return plan.micro_batches;
    return std::min(plan.stages[stage].in_flight, plan.micro_batches);
}

Result<std::vector<ActionList>> plan_actions(const Plan& plan, int micro_batches) {
    ECOPIPE_RETURN_IF_ERROR(check_plan(plan, "plan"));
    if (micro_batches < 1 || micro_batches > plan.micro_batches)
        return fail(ExitCode::kUsage,
                    fmt::format("plan: micro_batches: expected 1 to {} of a step, found {}",
                                plan.micro_batches, micro_batches));
    std::vector<ActionList> out;
    if (has_twins(plan)) return holder_actions(plan, micro_batches);
    if (has_actions(plan)) {
        ECOPIPE_ASSIGN_OR_RETURN(const ScheduleText text, own_schedule(plan, "plan"));
        for (const ActionList& list : text.devices)
            out.push_back(first_micro_batches(list, micro_batches));
        return out;
    }
    ScheduleShape shape;
    shape.micro_batches = micro_batches;
    const Placement place = placement_of(plan);
    shape.devices = place.devices();
    for (; shape.device < shape.devices; ++shape.device) {
        shape.slices = place.slices(shape.device);
        const int first = place.stage(shape.device, 0);
        shape.in_flight = plan.stages[static_cast<std::size_t>(first)].in_flight;
        out.push_back(find_schedule(plan.schedule)->actions(shape));
    }
    return out;
}

}  // namespace ecopipe
