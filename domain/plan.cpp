#include "domain/plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "core/check.h"

namespace ecopipe {
namespace {

// " 0..3 5..8"; none where it is the whole stage.
std::string segments_text(const Segments& segments, LayerRange stage) {
    if (segments == Segments{stage}) return {};
    std::string text;
    for (const LayerRange& segment : segments)
        text += fmt::format(" {}..{}", segment.first, segment.last);
    return text;
}

}  // namespace

Segments within(const Segments& segments, LayerRange layers) {
    Segments out;
    for (const LayerRange& segment : segments) {
        const LayerRange part{std::max(segment.first, layers.first),
                              std::min(segment.last, layers.last)};
        if (part.size() > 0) out.push_back(part);
    }
    return out;
}

std::vector<StageHolder> holders_of(const StagePlan& stage, int sum_blocks) {
    std::vector<StageHolder> holders{
        {stage.device, stage.blocks, stage.in_flight, stage.recomputed, stage.peak_bytes}};
    if (stage.blocks.empty()) {
        holders.front().blocks.resize(static_cast<std::size_t>(sum_blocks));
        std::iota(holders.front().blocks.begin(), holders.front().blocks.end(), 0);
    }
    holders.insert(holders.end(), stage.twins.begin(), stage.twins.end());
    return holders;
}

std::vector<HeldStage> held_stages(const Plan& plan) {
    std::vector<HeldStage> held;
    for (std::size_t s = 0; s < plan.stages.size(); ++s)
        for (StageHolder& holder : holders_of(plan.stages[s], plan.sum_blocks))
            held.push_back({s, std::move(holder)});
    return held;
}

Segments recomputed_on(const Plan& plan, const std::string& device) {
    Segments all;
    for (const HeldStage& held : held_stages(plan))
        if (held.holder.device == device)
            all.insert(all.end(), held.holder.recomputed.begin(), held.holder.recomputed.end());
    return all;
}

bool has_twins(const Plan& plan) {
    return std::any_of(plan.stages.begin(), plan.stages.end(), [](const StagePlan& stage) {
        return !stage.twins.empty() || !stage.blocks.empty();
    });
}

Placement placement_of(const Plan& plan) {
    const std::vector<HeldStage> held = held_stages(plan);
    if (has_twins(plan)) return Placement::cyclic(static_cast<int>(held.size()));
    std::vector<std::string> known;
    std::vector<int> devices;
    for (const HeldStage& stage : held) {
        const auto found = std::find(known.begin(), known.end(), stage.holder.device);
        devices.push_back(static_cast<int>(found - known.begin()));
        if (found == known.end()) known.push_back(stage.holder.device);
    }
    return Placement::of(devices);
}

std::vector<std::string> stage_lines(const Plan& plan) {
    std::vector<std::string> lines;
    for (const StagePlan& stage : plan.stages)
        for (const StageHolder& holder : holders_of(stage, plan.sum_blocks))
            lines.push_back(fmt::format(
                "stage on {}: layers {}..{}, {} in flight{}{}", holder.device, stage.first_layer,
                stage.last_layer, holder.in_flight,
                holder.recomputed.empty()
                    ? std::string()
                    : ", recomputing" +
                          segments_text(holder.recomputed, {stage.first_layer, stage.last_layer}),
                stage.twins.empty() ? std::string()
                                    : fmt::format(", sum blocks {} of {}",
                                                  fmt::join(holder.blocks, " "), plan.sum_blocks)));
    return lines;
}

std::uint64_t predicted_peak_bytes(const Plan& plan, const std::string& device) {
    if (const auto found = plan.memory.find(device); found != plan.memory.end())
        return found->second.total();
    std::uint64_t bytes = 0;
    for (const StagePlan& stage : plan.stages)
        for (const StageHolder& holder : holders_of(stage, plan.sum_blocks))
            if (holder.device == device) bytes += holder.peak_bytes.value_or(0);
    return bytes;
}

std::vector<int> micro_batch_sizes(int samples, int micro_batches) {
    ECOPIPE_CHECK(samples >= 0 && micro_batches >= 1);
    const int parts = std::min(samples, micro_batches);
    std::vector<int> out;
    for (int m = 0; m < parts; ++m) out.push_back(samples / parts + (m < samples % parts ? 1 : 0));
    return out;
}

}  // namespace ecopipe
