// What a plan's stages take in memory, with whatever segments of them are recomputed.
#include <algorithm>
#include <limits>

#include "domain/sum_blocks.h"
#include "planner/cost/cost_model.h"
#include "planner/schedule/registry.h"

namespace ecopipe {
namespace {

void consider(const Working& now, Working& most) {
    if (now.total() > most.total()) most = now;
}

}  // namespace

SliceLayers CostModel::slice_layers(const StageSpan& stage) const {
    const DeviceCost& device = device_[static_cast<std::size_t>(stage.device)];
    SliceLayers slice;
    for (int layer = stage.first; layer <= stage.last; ++layer) {
        const auto i = static_cast<std::size_t>(layer);
        const Sums& before = device.sums[i];
        const Sums& through = device.sums[i + 1];
        const double workspace = device.workspace_max.front()[i];
        slice.layers.push_back({through.forward - before.forward, through.stash - before.stash,
                                workspace, workspace, output_bytes_[i + 1], device.kept_output[i],
                                may_cut_before(layer)});
    }
    // By the contract's formula, which counts the input of the one that runs beside its stash.
    StageSpan whole = stage;
    whole.recompute = true;
    slice.running_whole = stage_memory(whole).peak(1) - state_bytes(stage);
    slice.entering = [this, begin = stage.first](int first, int last) {
        return graph_ ? ways_.entering_bytes(begin + first, begin + last)
                      : output_bytes_[static_cast<std::size_t>(begin + first)];
    };
    return slice;
}

Segments CostModel::own_segments(const StageSpan& stage, const Segments& segments) {
    Segments own;
    for (const LayerRange& segment : segments)
        own.push_back({segment.first - stage.first, segment.last - stage.first});
    return own;
}

StageMemory CostModel::stage_memory(const StageSpan& stage, const Segments& segments) const {
    StageSpan span = stage;
    span.recompute = !segments.empty();
    if (segments.empty() || segments == Segments{{stage.first, stage.last}})
        return stage_memory(span);
    const SegmentChoice taken = footprint(slice_layers(stage), own_segments(stage, segments));
    return {state_bytes(stage) + taken.running - taken.held, taken.held};
}

StageBytes CostModel::stage_bytes(const StageSpan& stage, const Segments& segments) const {
    const DeviceCost& device = device_[static_cast<std::size_t>(stage.device)];
    const Sums& begin = device.sums[static_cast<std::size_t>(stage.first)];
    const Sums& end = device.sums[static_cast<std::size_t>(stage.last) + 1];
    const SliceLayers slice = slice_layers(stage);
    StageBytes out;
    out.weights = end.parameters - begin.parameters + 2 * (end.buffers - begin.buffers);
    out.trainable = end.trainable - begin.trainable;
    out.moments = end.moments - begin.moments;
    // By layers, what is kept of the micro-batch when one runs: forward, and again or backward.
    std::vector<double> backward_stash;
    double handed_on = 0;
    auto segment = segments.begin();
    for (int layer = stage.first; layer <= stage.last; ++layer) {
        const SliceLayer& own = slice.layers[static_cast<std::size_t>(layer - stage.first)];
        while (segment != segments.end() && segment->last < layer) ++segment;
        const bool again = segment != segments.end() && segment->contains(layer);
        if (again && layer == segment->first) {
            backward_stash.push_back(out.held + own.stash);
            out.held += slice.entering(layer - stage.first, segment->last - stage.first);
            handed_on = 0;
        } else if (again) {
            backward_stash.push_back(backward_stash.back() + own.stash);
        } else {
            out.held += own.stash;
            backward_stash.push_back(out.held);
            handed_on = 0;
        }
        consider({out.held, handed_on + own.workspace, 0}, out.forward);
        handed_on = own.output;
        const bool ends = layer == stage.last || (again && layer == segment->last);
        if (ends && !again) out.held += own.kept_output;
        if (ends) consider({backward_stash.back() + own.kept_output, 0, 0}, out.running);
    }
    consider({out.held, 0, 0}, out.forward);
    out.first_backward = out.input_gradient = out.running;
    for (int layer = stage.last; layer >= stage.first; --layer) {
        const auto i = static_cast<std::size_t>(layer - stage.first);
        const SliceLayer& own = slice.layers[i];
        const double begun =
            end.trainable - device.sums[static_cast<std::size_t>(layer) + 1].trainable;
        consider({backward_stash[i], own.workspace, 0}, out.running);
        consider({backward_stash[i], own.workspace, begun}, out.first_backward);
        consider({backward_stash[i] + out.pending, own.workspace, 0}, out.input_gradient);
        if (trainable_bytes(layer) > 0) out.pending += own.stash + own.output;
        out.largest_workspace = std::max(out.largest_workspace, own.workspace);
    }
    return out;
}

const SegmentTable::Entry& CostModel::segment_entry(const StageSpan& stage) const {
    return segment_table_->of(stage, budget_bytes(stage.device) - state_bytes(stage),
                              micro_batches_, [&] { return slice_layers(stage); });
}

StageCost CostModel::stage_cost(const StageSpan& stage, int in_flight) const {
    StageCost cost = stage_cost(stage);
    if (!stage.recompute || recomputation_ == Recomputation::kStages ||
        segment_entry(stage).recompute_ms.empty())
        return cost;
    cost.recompute_at = segment_entry(stage).recompute_ms.data();
    return at_count(cost, in_flight);
}

std::vector<SegmentChoice> CostModel::every_choice(const StageSpan& stage) const {
    return grouped_choices(slice_layers(stage), stage.first,
                           std::numeric_limits<double>::infinity());
}

double CostModel::least_bytes(const StageSpan& stage, int in_flight) const {
    return state_bytes(stage) + least_peak(slice_layers(stage), in_flight);
}

std::optional<Segments> CostModel::segments_for(const StageSpan& stage, int in_flight, double room,
                                                bool quickly) const {
    if (recomputation_ == Recomputation::kStages) {
        for (const Segments& segments : {Segments{}, Segments{{stage.first, stage.last}}})
            if (stage_memory(stage, segments).peak(in_flight) <= room) return segments;
        return std::nullopt;
    }
    if (quickly) {
        for (const SegmentChoice& choice : segment_entry(stage).best)
            if (state_bytes(stage) + choice.peak(in_flight) <= room) return choice.segments;
        return std::nullopt;
    }
    const auto choice =
        least_recomputation(slice_layers(stage), in_flight, room - state_bytes(stage));
    if (!choice) return std::nullopt;
    Segments segments;
    for (const LayerRange& own : choice->segments)
        segments.push_back({own.first + stage.first, own.last + stage.first});
    return segments;
}

double CostModel::sums_bytes(const StageSpan& span, int count) const {
    double trainable = 0;
    for (int layer = span.first; layer <= span.last; ++layer) trainable += trainable_bytes(layer);
    return trainable * count;
}

// Of a graph: values that come past other stages wait at theirs, at most those of so many of its
// micro-batches.
double CostModel::waiting_skips_bytes(const Plan& plan, std::size_t stage,
                                      int micro_batches) const {
    if (!graph_) return 0;
    std::vector<StageSpan> stages;
    for (std::size_t s = 0; s < plan.stages.size(); ++s)
        stages.push_back(
            {static_cast<int>(s), plan.stages[s].first_layer, plan.stages[s].last_layer, false});
    double bytes = 0;
    for (const StageLoad& skip : skips(stages))
        if (skip.to == static_cast<int>(stage)) bytes += skip.bytes * micro_batches;
    return bytes;
}

// A sum a block, of which stage_memory has one, and what comes from the others.
double CostModel::holder_peak_bytes(const StageSpan& span, const HeldStage& held,
                                    const Plan& plan) const {
    const auto blocks = static_cast<int>(held.holder.blocks.size());
    const int own = micro_batches_of(held.holder.blocks, micro_batches_, plan.sum_blocks);
    const int in_flight = in_flight_of(plan, held);
    const bool twins = !plan.stages[held.stage].twins.empty();
    return stage_memory(span, held.holder.recomputed).peak(in_flight) +
           sums_bytes(span, blocks - (twins ? 0 : 1) - more_sums_) +
           waiting_skips_bytes(plan, held.stage, own - in_flight);
}

std::vector<double> CostModel::peak_bytes(const Plan& plan,
                                          const std::vector<StageSpan>& spans) const {
    const std::vector<HeldStage> held = held_stages(plan);
    std::vector<double> peaks;
    if (has_twins(plan)) {
        for (std::size_t h = 0; h < held.size(); ++h)
            peaks.push_back(holder_peak_bytes(spans[h], held[h], plan));
        return peaks;
    }
    std::vector<int> in_flight;
    for (const HeldStage& one : held) in_flight.push_back(in_flight_of(plan, one));
    peaks = peak_bytes(spans, in_flight);
    for (std::size_t s = 0; s < spans.size(); ++s)
        peaks[s] += stage_memory(spans[s], held[s].holder.recomputed).peak(in_flight[s]) -
                    stage_memory(spans[s]).peak(in_flight[s]);
    return peaks;
}

std::vector<double> CostModel::peak_bytes(const std::vector<StageSpan>& stages,
                                          const std::vector<int>& in_flight) const {
    const std::vector<StageLoad> waiting = skips(stages);
    std::vector<double> out;
    for (std::size_t s = 0; s < stages.size(); ++s)
        out.push_back(stage_memory(stages[s]).peak(in_flight[s]) +
                      waiting_bytes(waiting, s, in_flight));
    return out;
}

int CostModel::in_flight_of(const Plan& plan, const HeldStage& held) const {
    const int own = micro_batches_of(held.holder.blocks, micro_batches_, plan.sum_blocks);
    const Schedule* schedule = find_schedule(plan.schedule);
    const bool all = schedule != nullptr && schedule->holds_all();
    return all ? own : std::min(held.holder.in_flight, own);
}

void CostModel::price_segments(const Plan& plan, const std::vector<StageSpan>& spans,
                               PipelineCosts& costs) const {
    const std::vector<HeldStage> held = held_stages(plan);
    for (std::size_t h = 0; h < held.size(); ++h) {
        double ms = 0;
        for (const LayerRange& segment : held[h].holder.recomputed)
            ms += stage_cost({spans[h].device, segment.first, segment.last, false}).forward_ms;
        recompute_for(ms, costs.stages[h]);
    }
}

}  // namespace ecopipe
