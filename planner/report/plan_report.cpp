#include "planner/report/plan_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "core/check.h"
#include "core/units.h"
#include "domain/plan_index.h"
#include "planner/schedule/plan_file.h"

namespace ecopipe {
namespace {

template <class... Args>
void line(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
    out += '\n';
}

// "1.2 % above", of a time over a bound.
std::string above(double ms, double bound_ms) {
    return bound_ms > 0 ? fmt::format("{:.1f} % above", 100 * std::max(0.0, ms / bound_ms - 1))
                        : "above";
}

std::string_view recomputing(const Segments& segments, LayerRange stage) {
    if (segments.empty()) return "no";
    return segments == Segments{stage} ? "yes" : "partly";
}

void add_stages(std::string& out, const Plan& plan, const PlayedPlan& played) {
    line(out,
         "stage  device            layers     forward  backward   busy  in flight  recompute  "
         "memory MiB (of)");
    const auto devices = static_cast<std::size_t>(played.costs.place.devices());
    std::vector<double> busy(devices, 0);
    for (const ActionSpan& span : played.timeline.actions)
        busy[static_cast<std::size_t>(span.device)] += span.end_ms - span.start_ms;
    const std::vector<HeldStage> held = held_stages(plan);
    for (std::size_t h = 0; h < held.size(); ++h) {
        const std::size_t s = held[h].stage;
        const StagePlan& stage = plan.stages[s];
        const StageHolder& holder = held[h].holder;
        const StageCost& cost = played.costs.stages[h];
        const int device = played.costs.place.device(static_cast<int>(h));
        const double share = played.timeline.step_ms > 0
                                 ? busy[static_cast<std::size_t>(device)] / played.timeline.step_ms
                                 : 0;
        line(out,
             "{:<6} {:<16}  {:<9}  {:>7.2f}  {:>8.2f}  {:>3.0f} %  {:>9}  {:<9}  {:.1f} ({:.1f})",
             s, holder.device, fmt::format("{}-{}", stage.first_layer, stage.last_layer),
             cost.forward_ms, cost.backward_ms, 100 * share,
             stage.twins.empty() ? micro_batches_in_flight(plan, s) : holder.in_flight,
             recomputing(holder.recomputed, {stage.first_layer, stage.last_layer}),
             static_cast<double>(holder.peak_bytes.value_or(0)) / kMib,
             played.model.budget_bytes(played.spans[h].device) / kMib);
    }
    for (const std::string& text : stage_lines(plan))
        if (has_twins(plan)) line(out, "{}", text);
}

void add_prediction(std::string& out, const Plan& plan) {
    const Prediction& p = *plan.predicted;
    line(out,
         "step {:.2f} ms, and {:.2f} ms of control: {:.2f} ms on the wall, {:.1f} samples a second",
         p.step_ms, p.control_ms, p.step_ms + p.control_ms,
         1000.0 * plan.batch / std::max(1e-9, p.step_ms + p.control_ms));
    line(out,
         "at best {:.2f} ms with these stages ({}, {} binds), {:.2f} ms with any on this cluster "
         "({})",
         p.lower_bound_ms, above(p.step_ms, p.lower_bound_ms), p.bound_by, p.cluster_bound_ms,
         above(p.step_ms, p.cluster_bound_ms));
    line(out, "idle {:.1f} % of the devices' time", 100 * p.bubble_fraction);
}

// A skip counts in every cut that it passes, though only the stage that takes it gets it.
void add_widest_cut(std::string& out, const Plan& plan, const PlayedPlan& played) {
    if (!played.model.is_graph() || plan.stages.size() < 2) return;
    const auto widest = std::max_element(plan.stages.begin(), plan.stages.end() - 1,
                                         [&](const StagePlan& a, const StagePlan& b) {
                                             return played.model.crossing_bytes(a.last_layer) <
                                                    played.model.crossing_bytes(b.last_layer);
                                         });
    line(out, "the widest cut, behind layer {}, has {:.2f} MiB of values of a micro-batch across",
         widest->last_layer, played.model.crossing_bytes(widest->last_layer) / kMib);
}

void add_single(std::string& out, const Plan& plan) {
    const double step_ms = plan.predicted->step_ms;
    if (!plan.single_device) {
        line(out, "no single device holds the model");
    } else if (PlanIndex(plan).devices().size() == 1 && plan.single_device->step_ms >= step_ms) {
        line(out, "the single device {} wins: no pipeline of this cluster was found to be faster",
             plan.stages.front().device);
    } else {
        const SingleDevice& single = *plan.single_device;
        line(out,
             "the best single device, {} with {} thread{}, would take {:.2f} ms, {:.2f} times "
             "as long",
             single.device, single.threads, single.threads == 1 ? "" : "s", single.step_ms,
             single.step_ms / step_ms);
    }
}

void add_alternatives(std::string& out, const Plan& plan) {
    const double step_ms = plan.predicted->step_ms;
    const auto row = [&](const char* what, const std::optional<double>& ms) {
        if (ms)
            line(out, "{} would take {:.2f} ms, {:.2f} times as long", what, *ms, *ms / step_ms);
    };
    if (has_twins(plan)) row("one device a stage", plan.pipeline_ms);
    if (plan.stages.size() > 1 || !has_twins(plan))
        row("data parallelism, one stage on several devices,", plan.data_parallel_ms);
}

void add_what_if(std::string& out, const Plan& plan) {
    if (plan.what_if.empty()) return;
    line(out, "what would change it:");
    for (const WhatIf& row : plan.what_if) {
        if (!row.step_ms) {
            line(out, "  {:<56} no plan fits", row.change);
            continue;
        }
        const double change = 100 * (*row.step_ms / plan.predicted->step_ms - 1);
        line(out, "  {:<56} {:>10.2f} ms  {:>+7.1f} %", row.change, *row.step_ms, change);
    }
}

}  // namespace

std::string plan_report(const Plan& plan, const PlayedPlan& played,
                        const std::vector<PredictedLayers>& predicted) {
    ECOPIPE_CHECK(plan.predicted.has_value());
    std::string out;
    line(out, "{} on {}: {} of {} devices, {}, {} micro-batches of {}", plan.model,
         played.model.cluster().name, PlanIndex(plan).devices().size(), played.model.devices(),
         plan.schedule, plan.micro_batches, played.model.micro_batch());
    add_stages(out, plan, played);
    add_prediction(out, plan);
    add_widest_cut(out, plan, played);
    add_single(out, plan);
    add_alternatives(out, plan);
    for (const PredictedLayers& p : predicted)
        line(out, "{}: times of {} layers predicted, leave-one-out error {:.1f} %{}", p.device,
             p.count, 100 * p.error,
             p.flops_error > 0
                 ? fmt::format(" (scaling by FLOPs alone: {:.1f} %)", 100 * p.flops_error)
                 : "");
    add_what_if(out, plan);
    return out;
}

}  // namespace ecopipe
