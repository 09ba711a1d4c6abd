#include "planner/search/in_flight.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "planner/simulate/simulator.h"

namespace ecopipe {
namespace {

constexpr int kActionsImproved = 20'000;  // a longer step is not worth a hundred simulations
// Of an action, in those of the wavefront.
constexpr std::uint64_t kListCost = 3;    // in the recurrence over lists
constexpr std::uint64_t kEdgesCost = 8;   // in the recurrence over a graph's edges
constexpr std::uint64_t kEventCost = 36;  // in the event simulator
constexpr std::uint64_t kGraphEventCost = 72;

// How many non-increasing vectors with 1 <= K_s <= caps[s] there are, counted up to `limit`.
int count_vectors(const std::vector<int>& caps, int limit) {
    std::vector<std::int64_t> ways(static_cast<std::size_t>(caps.front()) + 1,
                                   0);  // [k]: ending in K = k
    for (int k = 1; k <= caps.front(); ++k) ways[static_cast<std::size_t>(k)] = 1;
    std::int64_t total = caps.front();
    for (std::size_t s = 1; s < caps.size() && total <= limit; ++s) {
        std::int64_t above = 0;
        total = 0;
        for (int k = caps.front(); k >= 1; --k) {
            above += ways[static_cast<std::size_t>(k)];
            ways[static_cast<std::size_t>(k)] = k <= caps[s] ? above : 0;
            total += ways[static_cast<std::size_t>(k)];
        }
    }
    return static_cast<int>(std::min<std::int64_t>(total, limit + 1));
}

}  // namespace

bool step_less(double a, double b) { return a < b * (1 - 1e-10); }

double SharedRoom::left_bytes(std::size_t stage, const std::vector<int>& in_flight) const {
    const Stage& own = stages[stage];
    return own.budget_bytes - own.memory.peak(in_flight[stage]) -
           waiting_bytes(skips, stage, in_flight);
}

const SegmentChoice* SharedRoom::choice(std::size_t stage,
                                        const std::vector<int>& in_flight) const {
    const double left = left_bytes(stage, in_flight);
    for (const SegmentChoice& one : *stages[stage].choices)
        if (one.peak(in_flight[stage]) <= left) return &one;
    return nullptr;
}

bool SharedRoom::holds(const std::vector<int>& in_flight) const {
    for (const StageLoad& skip : skips) {
        const auto s = static_cast<std::size_t>(skip.to);
        const bool fits = stages[s].choices != nullptr ? choice(s, in_flight) != nullptr
                                                       : left_bytes(s, in_flight) >= 0;
        if (!fits) return false;
    }
    return true;
}

ActionList InFlightChooser::list(int stage, int stages, int in_flight) const {
    return schedule_->actions({.micro_batches = micro_batches_,
                               .device = stage,
                               .devices = stages,
                               .in_flight = in_flight});
}

std::vector<ActionList> InFlightChooser::lists(const std::vector<int>& in_flight) const {
    std::vector<ActionList> out;
    for (std::size_t s = 0; s < in_flight.size(); ++s)
        out.push_back(list(static_cast<int>(s), static_cast<int>(in_flight.size()), in_flight[s]));
    return out;
}

double InFlightChooser::wave_ms(const PipelineCosts& costs, const std::vector<int>& in_flight,
                                double limit_ms) {
    const std::size_t stages = in_flight.size();
    wave_.resize(stages);
    for (std::size_t s = 0; s < stages; ++s) {
        const int count = schedule_->holds_all() ? micro_batches_ : in_flight[s];
        const StageCost cost = at_count(costs.stages[s], count);
        wave_[s] = {cost.forward_ms,
                    cost.backward_ms,
                    cost.update_ms,
                    s + 1 < stages ? costs.forward[s] : Transfer{},
                    s > 0 ? costs.backward[s - 1] : Transfer{},
                    count};
    }
    const Transfer feed = costs.feed.value_or(Transfer{});
    const double taken_ms = feed_precedes_gradients(costs) ? micro_batches_ * feed.occupy_ms : 0;
    const double ms = wavefront_.step_ms(wave_, micro_batches_, feed, taken_ms, limit_ms);
    work_ += wavefront_.actions();
    return ms;
}

const PipelineCosts& InFlightChooser::at_counts(const PipelineCosts& costs,
                                                const std::vector<int>& in_flight) {
    const auto depends = [](const StageCost& stage) { return stage.recompute_at != nullptr; };
    if (std::none_of(costs.stages.begin(), costs.stages.end(), depends)) return costs;
    priced_ = costs;
    for (std::size_t s = 0; s < in_flight.size(); ++s)
        priced_.stages[s] =
            at_count(costs.stages[s], schedule_->holds_all() ? micro_batches_ : in_flight[s]);
    for (const StageLoad& skip : room_.skips) {
        const auto s = static_cast<std::size_t>(skip.to);
        if (room_.stages[s].choices == nullptr) continue;
        if (const SegmentChoice* choice = room_.choice(s, in_flight))
            recompute_for(choice->recompute_ms, priced_.stages[s]);
    }
    return priced_;
}

double InFlightChooser::step_ms(const PipelineCosts& costs, const std::vector<int>& in_flight,
                                double limit_ms) {
    const int stages = static_cast<int>(in_flight.size());
    const bool fast = recurrence_applies(costs);
    if (fast && !costs.graph && schedule_->one_f_one_b) return wave_ms(costs, in_flight, limit_ms);
    const std::uint64_t each =
        costs.graph ? (fast ? kEdgesCost : kGraphEventCost) : (fast ? kListCost : kEventCost);
    work_ += static_cast<std::uint64_t>(2 * stages * micro_batches_) * each;
    const PipelineCosts& priced = at_counts(costs, in_flight);
    if (!fast) return simulate(priced, lists(in_flight)).step_ms;
    chosen_.clear();
    for (int s = 0; s < stages; ++s) {
        const std::tuple key(in_flight[static_cast<std::size_t>(s)], s, stages);
        auto found = cache_.find(key);
        if (found == cache_.end())
            found = cache_.emplace(key, list(s, stages, std::get<0>(key))).first;
        chosen_.push_back(&found->second);
    }
    return recurrence_.step_ms(priced, chosen_);
}

bool InFlightChooser::try_one(const PipelineCosts& costs, const std::vector<int>& in_flight,
                              InFlightChoice& best) {
    if (!room_.holds(in_flight)) return false;
    const double limit_ms =
        best.in_flight.empty() ? std::numeric_limits<double>::infinity() : best.step_ms;
    const double ms = step_ms(costs, in_flight, limit_ms);
    if (!best.in_flight.empty() && !step_less(ms, best.step_ms)) return false;
    best = {in_flight, ms};
    return true;
}

// Caps that no later count may exceed: at most M, and not increasing.
std::vector<int> InFlightChooser::capped(const std::vector<int>& caps) const {
    std::vector<int> out = caps;
    int above = micro_batches_;
    for (int& cap : out) above = cap = std::min(cap, above);
    return out;
}

// The counts with the highest ones lowered until they fit together.
std::vector<int> InFlightChooser::held(std::vector<int> counts) const {
    while (!room_.holds(counts)) {
        const int most = *std::max_element(counts.begin(), counts.end()) - 1;
        if (most == 0) break;
        for (int& count : counts) count = std::min(count, most);
    }
    return counts;
}

void InFlightChooser::try_all(const PipelineCosts& costs, const std::vector<int>& caps,
                              double bound_ms, InFlightChoice& best) {
    std::vector<int> counts(caps.size(), 1);
    while (true) {
        try_one(costs, counts, best);
        if (!step_less(bound_ms, best.step_ms)) return;
        // The next vector in lexicographic order: raise the last count that may rise, those after
        // it fall to 1.
        std::size_t s = counts.size();
        while (s-- > 0)
            if (counts[s] < caps[s] && (s == 0 || counts[s] < counts[s - 1])) break;
        if (s == std::size_t(-1)) return;
        ++counts[s];
        std::fill(counts.begin() + static_cast<std::ptrdiff_t>(s) + 1, counts.end(), 1);
    }
}

void InFlightChooser::improve(const PipelineCosts& costs, const std::vector<int>& caps,
                              double bound_ms, InFlightChoice& best) {
    const std::size_t stages = caps.size();
    for (bool moved = true; moved && step_less(bound_ms, best.step_ms);) {
        moved = false;
        for (std::size_t s = 0; s < stages; ++s)
            for (const int by : {1, -1, 2, -2, 4, -4}) {
                // One count alone, dragging its neighbours along where the order demands it.
                std::vector<int> counts = best.in_flight;
                const int wanted = std::clamp(counts[s] + by, 1, caps[s]);
                if (wanted == counts[s]) continue;
                counts[s] = wanted;
                for (std::size_t t = s; t-- > 0;) counts[t] = std::max(counts[t], wanted);
                for (std::size_t t = s + 1; t < stages; ++t)
                    counts[t] = std::min(counts[t], wanted);
                moved |= try_one(costs, counts, best);
                if (!step_less(bound_ms, best.step_ms)) return;
            }
    }
}

std::vector<int> InFlightChooser::ruled(const std::vector<int>& caps) const {
    std::vector<int> out = capped(caps);
    const int stages = static_cast<int>(caps.size());
    if (schedule_->holds_all()) out.assign(caps.size(), micro_batches_);
    if (schedule_->usual_in_flight != nullptr)
        for (int s = 0; s < stages; ++s) {
            int& count = out[static_cast<std::size_t>(s)];
            count = std::min(count, schedule_->usual_in_flight(s, stages));
        }
    return out;
}

InFlightChoice InFlightChooser::rule(const PipelineCosts& costs, const std::vector<int>& caps) {
    InFlightChoice out{held(ruled(caps)), 0};
    out.step_ms = step_ms(costs, out.in_flight);
    return out;
}

double InFlightChooser::find_pace(const PipelineCosts& costs, const std::vector<int>& caps) {
    pace_.clear();
    for (std::size_t s = 0; s < costs.stages.size(); ++s) {
        pace_.push_back({costs.stages[s].forward_ms + costs.stages[s].backward_ms, 0});
        if (s + 1 == costs.stages.size() || costs.graph) continue;
        const Transfer& down = costs.forward[s];
        const Transfer& up = costs.backward[s];
        pace_.back().travel_ms = down.occupy_ms + down.latency_ms + up.occupy_ms + up.latency_ms;
    }
    // Of a graph the ways between neighbours, as far as it has them: a start for what is tried.
    for (const auto* edges : {&costs.values, &costs.gradients})
        for (const StageEdge& edge : *edges)
            if (edge.from >= 0 && std::abs(edge.from - edge.to) == 1)
                pace_[static_cast<std::size_t>(std::min(edge.from, edge.to))].travel_ms +=
                    edge.transfer.occupy_ms + edge.transfer.latency_ms;
    return least_pace_ms(pace_, caps, micro_batches_, paced_);
}

InFlightChoice InFlightChooser::below(const PipelineCosts& costs, const std::vector<int>& caps,
                                      const std::vector<int>& wished, double limit_ms) {
    InFlightChoice best{held(ruled(caps)), 0};
    if (wished.size() == caps.size() && !schedule_->holds_all()) {
        best.in_flight = capped(caps);
        for (std::size_t s = 0; s < caps.size(); ++s)
            best.in_flight[s] = std::min(best.in_flight[s], wished[s]);
        best.in_flight = held(std::move(best.in_flight));
    } else if (schedule_->paced() && caps.size() > 1) {
        find_pace(costs, capped(caps));
        best.step_ms = step_ms(costs, best.in_flight, limit_ms);
        try_one(costs, paced_, best);
        return best;
    }
    best.step_ms = step_ms(costs, best.in_flight, limit_ms);
    return best;
}

// The least counts for the best pace that the caps allow, for slower ones, and with one more to
// every stage.
void InFlightChooser::try_paces(const PipelineCosts& costs, const std::vector<int>& caps,
                                InFlightChoice& best) {
    const double pace_ms = find_pace(costs, caps);
    std::vector<int> counts = paced_;
    try_one(costs, counts, best);
    for (const double slower : {1.05, 1.15})
        if (pace_ms > 0 && counts_at_pace(pace_, pace_ms * slower, caps, micro_batches_, counts))
            try_one(costs, counts, best);
    counts = best.in_flight;
    for (std::size_t s = 0; s < counts.size(); ++s) counts[s] = std::min(counts[s] + 1, caps[s]);
    try_one(costs, counts, best);
}

InFlightChoice InFlightChooser::choose(const PipelineCosts& costs, const std::vector<int>& caps,
                                       double bound_ms, int vectors_max) {
    InFlightChoice best = rule(costs, caps);
    if (schedule_->holds_all() || !step_less(bound_ms, best.step_ms)) return best;
    const std::vector<int> most = capped(caps);
    const int stages = static_cast<int>(caps.size());
    if (count_vectors(most, vectors_max) <= vectors_max) {
        best = {};
        try_all(costs, most, bound_ms, best);
        return best;
    }
    const auto try_rule = [&](auto&& count_of) {
        std::vector<int> counts = most;
        for (int s = 0; s < stages; ++s) {
            int& count = counts[static_cast<std::size_t>(s)];
            count = std::clamp(count_of(s), 1, count);
        }
        try_one(costs, counts, best);
    };
    try_rule([&](int s) { return stages - s; });
    try_rule([&](int s) { return 2 * (stages - s); });
    try_rule([&](int s) { return 3 * (stages - s) - 2; });
    try_rule([&](int) { return micro_batches_; });
    if (schedule_->paced()) try_paces(costs, most, best);
    if (2 * stages * micro_batches_ <= kActionsImproved) improve(costs, most, bound_ms, best);
    return best;
}

void InFlightChooser::lower(const PipelineCosts& costs, const std::vector<int>& caps,
                            int vectors_max, InFlightChoice& choice) {
    if (schedule_->holds_all()) return;
    const std::vector<int> most = capped(caps);
    if (count_vectors(most, vectors_max) <= vectors_max) {
        InFlightChoice smallest;
        try_all(costs, most, choice.step_ms, smallest);
        if (!step_less(choice.step_ms, smallest.step_ms)) choice = smallest;
        return;
    }
    const std::size_t stages = choice.in_flight.size();
    // A count may fall only once the next one has, so the rounds go on until one changes nothing.
    for (bool moved = true; moved;) {
        moved = false;
        for (std::size_t s = 0; s < stages; ++s) {
            const int least = s + 1 < stages ? choice.in_flight[s + 1] : 1;
            for (int by = std::max(1, choice.in_flight[s] - least); by > 0;) {
                std::vector<int> counts = choice.in_flight;
                counts[s] -= by;
                const double ms = counts[s] >= least && room_.holds(counts)
                                      ? step_ms(costs, counts, choice.step_ms * (1 + 1e-9))
                                      : HUGE_VAL;
                if (step_less(choice.step_ms, ms)) {
                    by /= 2;
                    continue;
                }
                choice = {counts, std::min(ms, choice.step_ms)};
                moved = true;
            }
        }
    }
}

}  // namespace ecopipe
