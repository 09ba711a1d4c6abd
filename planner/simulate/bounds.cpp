#include "planner/simulate/bounds.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace ecopipe {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

// A stage's times with the kinds of backward told apart: `back` is what the gradient waits for on
// its way up, `rest` what this device still owes afterwards, `work` all of a micro-batch.
struct Parts {
    double forward, back, rest, work;
};

Parts parts_of(const StageCost& stage, BackwardKind kind) {
    const double split = stage.input_gradient_ms + stage.weight_gradient_ms;
    switch (kind) {
        case BackwardKind::kWhole:
            return {stage.forward_ms, stage.backward_ms, 0, stage.forward_ms + stage.backward_ms};
        case BackwardKind::kSplit:
            return {stage.forward_ms, stage.input_gradient_ms, stage.weight_gradient_ms,
                    stage.forward_ms + split};
        default:
            return {stage.forward_ms, std::min(stage.backward_ms, stage.input_gradient_ms), 0,
                    stage.forward_ms + std::min(stage.backward_ms, split)};
    }
}

// The ways of a micro-batch through the pipeline, every link's time included.
struct Ways {
    std::vector<Parts> parts;
    std::vector<double> head;  // from t = 0 to the input of stage k
    std::vector<double>
        round;  // from the input of stage k to the end of its back part, through all later stages
    std::vector<double> tail;    // from there to the end of the step, at least
    std::vector<double> update;  // of each device, all slices
};

double travel(const Transfer& transfer) { return transfer.occupy_ms + transfer.latency_ms; }

// The longest way of a micro-batch from the input of stage k to the end of its back part: down
// along values to some stage, whose own backward comes after its forward, and up along gradients.
double round_of(const PipelineCosts& costs, const std::vector<Parts>& parts, std::size_t k) {
    constexpr double kNoWay = -kInfinite;
    const std::size_t count = costs.stages.size();
    std::vector<double> down(count, kNoWay);  // to the end of the forward
    std::vector<double> up(count, kNoWay);    // from the start of the back part to the end of k's
    down[k] = parts[k].forward;
    up[k] = parts[k].back;
    for (const StageEdge& edge :
         costs.values) {  // by their senders: those of one are known by then
        if (edge.from < static_cast<int>(k)) continue;
        const auto to = static_cast<std::size_t>(edge.to);
        down[to] = std::max(down[to], down[static_cast<std::size_t>(edge.from)] +
                                          travel(edge.transfer) + parts[to].forward);
    }
    for (const StageEdge& edge : costs.gradients) {  // and these by their receivers
        if (edge.to < static_cast<int>(k)) continue;
        const auto from = static_cast<std::size_t>(edge.from);
        up[from] = std::max(up[from], up[static_cast<std::size_t>(edge.to)] +
                                          travel(edge.transfer) + parts[from].back);
    }
    double longest = kNoWay;
    for (std::size_t turn = k; turn < count; ++turn)
        longest = std::max(longest, down[turn] + up[turn]);
    return longest;
}

std::size_t device_of(const PipelineCosts& costs, std::size_t stage) {
    return static_cast<std::size_t>(costs.place.device(static_cast<int>(stage)));
}

// Of a graph. Each is what some chain of waiting takes, so that none is more than the simulation
// takes: a forward waits for every value that comes to its stage, a backward for its own forward
// and every gradient. Nothing is said of stages between which nothing goes.
void find_graph_ways(const PipelineCosts& costs, Ways& out) {
    const std::size_t count = costs.stages.size();
    out.head.assign(count, 0);
    for (const StageEdge& edge : costs.values) {
        const auto from = static_cast<std::size_t>(edge.from);
        const double sent = edge.from < 0 ? 0 : out.head[from] + out.parts[from].forward;
        double& head = out.head[static_cast<std::size_t>(edge.to)];
        head = std::max(head, sent + travel(edge.transfer));
    }
    for (std::size_t k = 0; k < count; ++k) {
        out.tail.push_back(out.parts[k].rest + out.update[device_of(costs, k)]);
        out.round.push_back(round_of(costs, out.parts, k));
    }
    for (const StageEdge& edge : costs.gradients) {
        const auto to = static_cast<std::size_t>(edge.to);
        double& tail = out.tail[static_cast<std::size_t>(edge.from)];
        tail = std::max(tail, travel(edge.transfer) + out.parts[to].back + out.tail[to]);
    }
}

Ways ways_of(const PipelineCosts& costs, BackwardKind kind) {
    Ways out;
    const std::size_t count = costs.stages.size();
    out.update.assign(static_cast<std::size_t>(costs.place.devices()), 0);
    for (std::size_t k = 0; k < count; ++k) {
        out.parts.push_back(parts_of(costs.stages[k], kind));
        out.update[device_of(costs, k)] += costs.stages[k].update_ms;
    }
    if (costs.graph) {
        find_graph_ways(costs, out);
        return out;
    }
    for (std::size_t k = 0; k < count; ++k) {
        const double owed = out.parts[k].rest + out.update[device_of(costs, k)];
        if (k == 0) {
            out.head.push_back(costs.feed ? travel(*costs.feed) : 0);
            out.tail.push_back(owed);
            continue;
        }
        out.head.push_back(out.head[k - 1] + out.parts[k - 1].forward +
                           travel(costs.forward[k - 1]));
        out.tail.push_back(std::max(
            owed, travel(costs.backward[k - 1]) + out.parts[k - 1].back + out.tail[k - 1]));
    }
    out.round.assign(count, 0);
    for (std::size_t k = count; k-- > 0;) {
        out.round[k] = out.parts[k].forward + out.parts[k].back;
        if (k + 1 < count)
            out.round[k] += travel(costs.forward[k]) + out.round[k + 1] + travel(costs.backward[k]);
    }
    return out;
}

void raise(Bound& bound, double ms, const std::string& by) {
    if (ms > bound.ms * (1 + 1e-12)) bound = {ms, by};
}

void raise_by_devices(Bound& bound, const PipelineCosts& costs, const Ways& ways) {
    const double m = costs.micro_batches;
    for (int device = 0; device < costs.place.devices(); ++device) {
        const auto d = static_cast<std::size_t>(device);
        const auto first = static_cast<std::size_t>(costs.place.stage(device, 0));
        double work = 0;
        double until_back = 0;
        double head = ways.head[first];
        double tail = ways.tail[first];
        for (int slice = 0; slice < costs.place.slices(device); ++slice) {
            const auto k = static_cast<std::size_t>(costs.place.stage(device, slice));
            work += ways.parts[k].work;
            until_back += ways.parts[k].forward + ways.parts[k].back;
            if (!costs.graph)
                continue;  // a chain comes to the first slice first, and leaves it last
            head = std::min(head, ways.head[k]);
            tail = std::min(tail, ways.tail[k]);
        }
        const double ms = head + std::max(m * work + ways.update[d], m * until_back + tail);
        raise(bound, ms, fmt::format("stage {} compute", d));
    }
}

// What one resource carries: how early it can start, how long it is busy, what follows at least.
struct Load {
    double ready = kInfinite;
    double busy = 0;
    double after = kInfinite;
};

void add_load(std::vector<Load>& loads, const Transfer& transfer, int micro_batches, double ready,
              double after) {
    if (transfer.resource < 0) return;
    Load& load = loads[static_cast<std::size_t>(transfer.resource)];
    load.ready = std::min(load.ready, ready);
    load.busy += micro_batches * transfer.occupy_ms;
    load.after = std::min(load.after, transfer.latency_ms + after);
}

void raise_by_resources(Bound& bound, const PipelineCosts& costs, const Ways& ways) {
    std::vector<Load> loads(costs.resources.size());
    for (const StageEdge& edge : costs.values) {
        const auto from = static_cast<std::size_t>(edge.from);
        const auto to = static_cast<std::size_t>(edge.to);
        add_load(loads, edge.transfer, costs.micro_batches,
                 edge.from < 0 ? 0 : ways.head[from] + ways.parts[from].forward,
                 ways.round[to] + ways.tail[to]);
    }
    for (const StageEdge& edge : costs.gradients) {
        const auto from = static_cast<std::size_t>(edge.from);
        const auto to = static_cast<std::size_t>(edge.to);
        add_load(loads, edge.transfer, costs.micro_batches, ways.head[from] + ways.round[from],
                 ways.parts[to].back + ways.tail[to]);
    }
    if (costs.feed)
        add_load(loads, *costs.feed, costs.micro_batches, 0, ways.round[0] + ways.tail[0]);
    for (std::size_t k = 0; k < costs.forward.size(); ++k) {
        const double home = ways.parts[k].back + ways.tail[k];
        add_load(loads, costs.forward[k], costs.micro_batches, ways.head[k] + ways.parts[k].forward,
                 ways.round[k + 1] + travel(costs.backward[k]) + home);
        add_load(loads, costs.backward[k], costs.micro_batches,
                 ways.head[k + 1] + ways.round[k + 1], home);
    }
    for (std::size_t r = 0; r < loads.size(); ++r)
        if (loads[r].ready < kInfinite)
            raise(bound, loads[r].ready + loads[r].busy + loads[r].after, costs.resources[r].name);
}

// Layers that may not be parted, as one.
std::vector<StageSpan> atoms(const CostModel& model) {
    std::vector<StageSpan> out;
    for (int layer = 0; layer < model.layers(); ++layer) {
        if (model.may_cut_before(layer)) out.push_back({0, layer, layer, false});
        out.back().last = layer;
    }
    return out;
}

bool holds_any(const CostModel& model, const std::vector<StageSpan>& layers, int device) {
    return std::any_of(layers.begin(), layers.end(), [&](StageSpan span) {
        span.device = device;
        if (model.in_flight_cap(span) > 0) return true;
        span.recompute = true;
        return model.in_flight_cap(span) > 0;
    });
}

}  // namespace

BackwardKind backward_kind(const std::vector<ActionList>& lists) {
    bool whole = false;
    bool split = false;
    for (const ActionList& list : lists)
        for (const Action& action : list) {
            whole |= action.kind == ActionKind::kBackward;
            split |= action.kind == ActionKind::kInputGradient;
        }
    return !split ? BackwardKind::kWhole : whole ? BackwardKind::kMixed : BackwardKind::kSplit;
}

Bound pipeline_bound(const PipelineCosts& costs, BackwardKind backward) {
    const Ways ways = ways_of(costs, backward);
    Bound bound{0, "nothing"};
    raise_by_devices(bound, costs, ways);
    raise_by_resources(bound, costs, ways);
    return bound;
}

double graph_bound_ms(const PipelineCosts& costs, BackwardKind backward) {
    const std::size_t count = costs.stages.size();
    const double m = costs.micro_batches;
    std::vector<Parts> parts;
    for (const StageCost& stage : costs.stages) parts.push_back(parts_of(stage, backward));
    std::vector<double> head(count, 0);
    std::vector<double> tail(count, 0);
    for (const StageEdge& edge : costs.values) {
        const auto from = static_cast<std::size_t>(edge.from);
        const double sent = edge.from < 0 ? 0 : head[from] + parts[from].forward;
        double& here = head[static_cast<std::size_t>(edge.to)];
        here = std::max(here, sent + travel(edge.transfer));
    }
    for (const StageEdge& edge : costs.gradients) {
        const auto to = static_cast<std::size_t>(edge.to);
        double& here = tail[static_cast<std::size_t>(edge.from)];
        here = std::max(here, travel(edge.transfer) + parts[to].back + tail[to]);
    }
    double bound = 0;
    for (std::size_t k = 0; k < count; ++k)
        bound = std::max({bound, head[k] + m * parts[k].work,
                          head[k] + m * (parts[k].forward + parts[k].back) + tail[k]});
    // An edge is busy M times in a row at best, after the first and before the last micro-batch's
    // way.
    const double others = m - 1;
    for (const StageEdge& edge : costs.values) {
        const auto from = static_cast<std::size_t>(edge.from);
        const auto to = static_cast<std::size_t>(edge.to);
        const double sent = edge.from < 0 ? 0 : head[from] + parts[from].forward;
        bound = std::max(bound, sent + others * edge.transfer.occupy_ms + travel(edge.transfer) +
                                    parts[to].forward + parts[to].back + tail[to]);
    }
    for (const StageEdge& edge : costs.gradients) {
        const auto from = static_cast<std::size_t>(edge.from);
        const auto to = static_cast<std::size_t>(edge.to);
        bound = std::max(bound, head[from] + parts[from].forward + parts[from].back +
                                    others * edge.transfer.occupy_ms + travel(edge.transfer) +
                                    parts[to].back + tail[to]);
    }
    return bound;
}

double quick_bound_ms(const PipelineCosts& costs) {
    if (costs.graph) return graph_bound_ms(costs, BackwardKind::kWhole);
    const double m = costs.micro_batches;
    double bound = 0;
    double way = costs.feed ? travel(*costs.feed) : 0;  // head + tail of the stage at hand
    double widest = costs.feed ? costs.feed->occupy_ms : 0;
    for (std::size_t k = 0; k < costs.stages.size(); ++k) {
        const StageCost& stage = costs.stages[k];
        const double own = stage.forward_ms + stage.backward_ms;
        bound = std::max(bound, way + m * own);
        widest = std::max({widest, stage.forward_ms, stage.backward_ms});
        way += own;
        if (k + 1 == costs.stages.size()) break;
        way += travel(costs.forward[k]) + travel(costs.backward[k]);
        widest = std::max({widest, costs.forward[k].occupy_ms, costs.backward[k].occupy_ms});
    }
    return std::max(bound, way + (m - 1) * widest);
}

double in_flight_bound_ms(const PipelineCosts& costs, const std::vector<int>& in_flight) {
    const Ways ways = ways_of(costs, BackwardKind::kWhole);
    double bound = 0;
    for (std::size_t k = 0; k < ways.head.size(); ++k) {
        const int m = costs.micro_batches;
        const int rounds = (m + in_flight[k] - 1) / in_flight[k];
        const double first = ways.head[k] + ways.round[k] + ways.tail[k];
        const double before = std::max(0, m - in_flight[k]) * ways.parts[k].forward;
        bound = std::max({bound, ways.head[k] + rounds * ways.round[k] + ways.tail[k],
                          first + (m - 1) * ways.parts[k].back + before,
                          first + (m - 1) * ways.parts[k].forward});
    }
    return bound;
}

Bound holders_bound(const PipelineCosts& costs, const std::vector<ActionList>& lists) {
    Bound bound;
    for (std::size_t d = 0; d < lists.size(); ++d) {
        double ms = costs.stages[d].update_ms;
        for (const Action& action : lists[d]) ms += action_ms(costs.stages[d], action.kind);
        if (ms > bound.ms) bound = {ms, costs.device_names[d] + " compute"};
    }
    return bound;
}

double cluster_bound_ms(const CostModel& model, BackwardKind backward, bool fill, bool twins) {
    // Two branches need not wait for one another.
    const bool waits = fill && !twins && !model.is_graph();
    std::vector<StageSpan> layers = atoms(model);
    std::vector<int> able;
    for (int d = 0; d < model.devices(); ++d)
        if (holds_any(model, layers, d)) able.push_back(d);
    const auto work_on = [&](StageSpan span, int device) {
        span.device = device;
        return parts_of(model.stage_cost(span), backward).work;
    };
    double total = 0;
    double largest = 0;
    std::vector<double> speeds(able.size(), 0);
    for (const StageSpan& span : layers) {
        double fastest = kInfinite;
        for (const int d : able) fastest = std::min(fastest, work_on(span, d));
        if (fastest == kInfinite || fastest <= 0) continue;
        total += fastest;
        if (!twins) largest = std::max(largest, fastest);
        for (std::size_t i = 0; i < able.size(); ++i)
            speeds[i] = std::max(speeds[i], fastest / work_on(span, able[i]));
    }
    std::sort(speeds.begin(), speeds.end(), std::greater<>());
    const double m = model.micro_batches();
    double capacity = 0;
    double share = 1;
    for (const double speed : speeds) {
        capacity += speed * share;
        if (waits) share *= 1 - 1 / m;
    }
    return m * std::max(largest, capacity > 0 ? total / capacity : 0);
}

}  // namespace ecopipe
