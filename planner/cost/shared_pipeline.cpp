// What a plan costs in which several devices hold a stage: a graph in which each of them is a stage
// of its own, with edges that carry the micro-batches of the blocks that both ends own.
#include <algorithm>
#include <map>

#include "domain/plan_index.h"
#include "planner/cost/cost_model.h"
#include "planner/cost/resource_table.h"
#include "planner/schedule/registry.h"

namespace ecopipe {
namespace {

// A byte of a sum that is sent or taken costs its device's core about as much as so many bytes that
// an update reads or writes: it is packed, copied by the kernel and added. Measured on loopback:
// 0.6 to 0.9 ns a byte, where an update with momentum took 0.04 for each byte that it touched.
constexpr double kBytesOfUpdate = 18;
constexpr double kUpdateTouches = 3;      // weights and gradients read, weights written,
constexpr double kUpdateTouchesSlot = 2;  // and each slot of the optimiser read and written

std::uint64_t mask_of(const std::vector<int>& blocks) {
    std::uint64_t mask = 0;
    for (const int block : blocks) mask |= 1ULL << block;
    return mask;
}

}  // namespace

StageLoads CostModel::stage_loads(const Plan& plan, const std::vector<StageSpan>& spans) const {
    std::vector<StageSpan> stages;  // on the first of their holders
    for (std::size_t h = 0; const HeldStage& held : held_stages(plan)) {
        if (held.stage == stages.size()) stages.push_back(spans[h]);
        ++h;
    }
    if (graph_) return ways_.loads(stages, -1);
    StageLoads loads;
    loads.values.push_back({-1, 0, crossing_bytes(-1), 0});
    for (int s = 0; s + 1 < static_cast<int>(stages.size()); ++s) {
        const int last = stages[static_cast<std::size_t>(s)].last;
        loads.values.push_back({s, s + 1, crossing_bytes(last), 0});
        // Where no gradient returns the next stage's backward is not waited for, but ends the
        // step's order all the same: of no bytes.
        loads.gradients.push_back({s + 1, s, returns_gradient(last) ? crossing_bytes(last) : 0, 0});
    }
    return loads;
}

PipelineCosts CostModel::shared_pipeline(const Plan& plan,
                                         const std::vector<StageSpan>& spans) const {
    PipelineCosts costs;
    costs.micro_batches = micro_batches_;
    costs.place = Placement::cyclic(static_cast<int>(spans.size()));
    costs.graph = true;
    costs.sum_blocks = plan.sum_blocks;
    const std::vector<HeldStage> held = held_stages(plan);
    for (std::size_t h = 0; h < held.size(); ++h) {
        costs.stages.push_back(stage_cost(spans[h]));
        costs.device_names.push_back(held[h].holder.device);
    }
    ResourceTable table(cluster_, costs, true);
    const int portal = static_cast<int>(cluster_.portal);
    const auto add = [&](const StageLoad& load, TensorCodec codec, std::vector<StageEdge>& edges) {
        const double floating = load.bytes - load.integer_bytes;
        const double bytes = load.integer_bytes + floating * codec_ratio(codec);
        const auto edge = [&](int from, int from_device, int to, std::uint64_t blocks) {
            const int to_device = spans[static_cast<std::size_t>(to)].device;
            Transfer transfer;
            if (bytes > 0)
                transfer = table.transfer(from_device, to_device,
                                          bytes * wire(from_device, to_device).ms_per_byte,
                                          latency_ms(from_device, to_device));
            edges.push_back({from, to, transfer, blocks});
        };
        for (std::size_t t = 0; t < held.size(); ++t) {
            if (static_cast<int>(held[t].stage) != load.to) continue;
            const std::uint64_t taken = mask_of(held[t].holder.blocks);
            if (load.from < 0) edge(-1, portal, static_cast<int>(t), taken);
            for (std::size_t f = 0; f < held.size(); ++f) {
                if (static_cast<int>(held[f].stage) != load.from) continue;
                const std::uint64_t both = taken & mask_of(held[f].holder.blocks);
                if (both != 0)
                    edge(static_cast<int>(f), spans[f].device, static_cast<int>(t), both);
            }
        }
    };
    const StageLoads loads = stage_loads(plan, spans);
    for (const StageLoad& load : loads.values)
        add(load,
            load.from < 0 ? TensorCodec::kNone
                          : plan.stages[static_cast<std::size_t>(load.from)].codec_forward,
            costs.values);
    for (const StageLoad& load : loads.gradients)
        add(load, plan.stages[static_cast<std::size_t>(load.from)].codec_backward, costs.gradients);
    add_sums(plan, spans, table, costs);
    return costs;
}

void CostModel::add_sums(const Plan& plan, const std::vector<StageSpan>& spans,
                         ResourceTable& table, PipelineCosts& costs) const {
    const SumTree tree(plan.sum_blocks);
    const std::vector<HeldStage> held = held_stages(plan);
    for (std::size_t s = 0; s < plan.stages.size(); ++s) {
        std::vector<std::size_t> holders;  // into held
        std::vector<std::size_t> subtrees;
        for (std::size_t h = 0; h < held.size(); ++h) {
            if (held[h].stage != s) continue;
            holders.push_back(h);
            std::vector<bool> owned(static_cast<std::size_t>(plan.sum_blocks), false);
            for (const int block : held[h].holder.blocks)
                owned[static_cast<std::size_t>(block)] = true;
            subtrees.push_back(tree.subtrees(owned).size());
        }
        if (holders.size() < 2) continue;
        std::map<int, std::size_t> bytes;
        const int first = plan.stages[s].first_layer;
        const int last = plan.stages[s].last_layer;
        for (int layer = first; layer <= last; ++layer)
            if (trainable_bytes(layer) > 0)
                bytes[layer] = static_cast<std::size_t>(trainable_bytes(layer));
        const double ratio = codec_ratio(plan.stages[s].codec_backward);
        // The last layer's gradient is final first.
        const auto share = [&](std::size_t holder, int layer) {
            const int device = spans[holder].device;
            const auto backward_ms = [&](int from) {
                return stage_cost({device, from, last, false}).backward_ms;
            };
            return backward_ms(first) > 0 ? backward_ms(layer) / backward_ms(first) : 1;
        };
        const auto handle = [&](std::size_t holder, int layer, double count) {
            const int device = spans[holder].device;
            const double update_ms = stage_cost({device, layer, layer, false}).update_ms;
            costs.stages[holder].update_ms +=
                count * ratio * update_ms * kBytesOfUpdate /
                (kUpdateTouches +
                 kUpdateTouchesSlot * device_[static_cast<std::size_t>(device)].slots);
        };
        const std::map<int, std::size_t> homes = sum_homes(bytes, subtrees);
        for (auto layer = homes.rbegin(); layer != homes.rend(); ++layer) {
            const std::size_t home = holders[layer->second];
            LayerSums sums;
            sums.home = static_cast<int>(home);
            sums.share = share(home, layer->first);
            const double each = static_cast<double>(bytes[layer->first]) * ratio;
            for (std::size_t i = 0; i < holders.size(); ++i) {
                if (holders[i] == home) continue;
                const int from = spans[holders[i]].device;
                const int to = spans[home].device;
                const auto way = [&](int a, int b, double count) {
                    return table.transfer(a, b, count * each * wire(a, b).ms_per_byte,
                                          latency_ms(a, b));
                };
                const auto parts = static_cast<double>(subtrees[i]);
                sums.parts.push_back({static_cast<int>(holders[i]), share(holders[i], layer->first),
                                      way(from, to, parts), way(to, from, 1)});
                handle(holders[i], layer->first, parts + 1);
                handle(home, layer->first, parts + 1);
            }
            costs.sums.push_back(std::move(sums));
        }
    }
}

}  // namespace ecopipe
