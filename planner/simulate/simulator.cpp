#include "planner/simulate/simulator.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <tuple>

#include "core/check.h"

namespace ecopipe {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

// One tensor that waits for its turn or travels.
struct Parcel {
    double ready_ms = 0;
    int from_stage = 0;
    bool gradient = false;
    int micro_batch = 0;
    int to_stage = 0;
    Transfer transfer;

    // The order of turns; true when `a` goes after `b`.
    struct After {
        bool operator()(const Parcel& a, const Parcel& b) const { return key(a) > key(b); }
        static std::tuple<double, int, bool, int, int> key(const Parcel& p) {
            return {p.ready_ms, p.from_stage, p.gradient, p.micro_batch, p.to_stage};
        }
    };
};

// At one instant everything that happens is noted before any resource picks its next transfer.
enum class EventKind { kActionEnd, kArrival, kSum, kTurn };

struct Event {
    double at_ms = 0;
    EventKind kind = EventKind::kActionEnd;
    int subject = 0;  // device, stage or resource
    int micro_batch = 0;
    bool gradient = false;

    bool operator>(const Event& other) const {
        return std::tie(at_ms, kind, subject, micro_batch, gradient) >
               std::tie(other.at_ms, other.kind, other.subject, other.micro_batch, other.gradient);
    }
};

class Simulation {
  public:
    Simulation(const PipelineCosts& costs, const std::vector<ActionList>& lists)
        : costs_(costs),
          lists_(lists),
          micro_batches_(static_cast<std::size_t>(costs.micro_batches)),
          next_(lists.size(), 0),
          running_(lists.size(), false),
          activation_ms_(costs.stages.size() * micro_batches_, kNever),
          gradient_ms_(costs.stages.size() * micro_batches_, kNever),
          waiting_(costs.resources.size()),
          free_ms_(costs.resources.size(), 0) {
        timeline_.update_start_ms.assign(lists.size(), 0);
        if (costs.graph) {
            read_edges(costs.values, values_, activation_ms_, missing_values_);
            read_edges(costs.gradients, gradients_, gradient_ms_, missing_gradients_);
        }
        for (const LayerSums& sums : costs.sums) owed_.push_back({sums.parts.size()});
        summed_ms_.assign(lists.size(), 0);
    }

    Timeline run() {
        if (costs_.graph) {
            for (int m = 0; m < costs_.micro_batches; ++m)
                for (const StageEdge& edge : costs_.values)
                    if (edge.from < 0 && carries(edge, m))
                        send(0, -1, edge.to, m, false, edge.transfer);
            for (int device = 0; device < costs_.place.devices(); ++device) start_next(device);
        } else {
            for (int m = 0; m < costs_.micro_batches; ++m)
                send(0, -1, 0, m, false, costs_.feed.value_or(Transfer{}));
        }
        while (!events_.empty()) {
            const Event event = events_.top();
            events_.pop();
            now_ms_ = event.at_ms;
            switch (event.kind) {
                case EventKind::kActionEnd:
                    end_action(event.subject);
                    break;
                case EventKind::kArrival:
                    arrive(event);
                    break;
                case EventKind::kSum:
                    part_final(event.subject, event.micro_batch);
                    break;
                case EventKind::kTurn:
                    take_turn(event.subject);
                    break;
            }
        }
        finish();
        return std::move(timeline_);
    }

  private:
    [[nodiscard]] std::size_t cell(int stage, int micro_batch) const {
        return static_cast<std::size_t>(stage) * micro_batches_ +
               static_cast<std::size_t>(micro_batch);
    }
    // What leaves each stage, and how much each still waits for; who waits for nothing may begin.
    void read_edges(const std::vector<StageEdge>& edges,
                    std::vector<std::vector<const StageEdge*>>& leaving,
                    std::vector<double>& there_ms, std::vector<int>& missing) const {
        leaving.resize(costs_.stages.size());
        missing.assign(there_ms.size(), 0);
        for (const StageEdge& edge : edges) {
            if (edge.from >= 0) leaving[static_cast<std::size_t>(edge.from)].push_back(&edge);
            for (int m = 0; m < costs_.micro_batches; ++m)
                if (carries(edge, m)) ++missing[cell(edge.to, m)];
        }
        for (std::size_t i = 0; i < missing.size(); ++i)
            if (missing[i] == 0) there_ms[i] = 0;
    }
    [[nodiscard]] bool carries(const StageEdge& edge, int micro_batch) const {
        return (edge.blocks >> (micro_batch % costs_.sum_blocks) & 1U) != 0;
    }
    [[nodiscard]] int stage_of(int device, const Action& action) const {
        return costs_.place.stage(device, action.slice);
    }

    void send(double ready_ms, int from, int to, int micro_batch, bool gradient,
              const Transfer& transfer) {
        if (transfer.resource < 0) {
            events_.push({ready_ms, EventKind::kArrival, to, micro_batch, gradient});
            return;
        }
        const auto resource = static_cast<std::size_t>(transfer.resource);
        waiting_[resource].push({ready_ms, from, gradient, micro_batch, to, transfer});
        events_.push({std::max(ready_ms, free_ms_[resource]), EventKind::kTurn, transfer.resource,
                      0, false});
    }

    void take_turn(int index) {
        const auto resource = static_cast<std::size_t>(index);
        if (waiting_[resource].empty() || free_ms_[resource] > now_ms_) return;
        const Parcel parcel = waiting_[resource].top();
        waiting_[resource].pop();
        const double end_ms = now_ms_ + parcel.transfer.occupy_ms;
        const double arrival_ms = end_ms + parcel.transfer.latency_ms;
        free_ms_[resource] = end_ms;
        timeline_.transfers.push_back({index, parcel.from_stage, parcel.to_stage,
                                       parcel.micro_batch, now_ms_, end_ms, arrival_ms});
        events_.push({arrival_ms, EventKind::kArrival, parcel.to_stage, parcel.micro_batch,
                      parcel.gradient});
        if (!waiting_[resource].empty()) events_.push({end_ms, EventKind::kTurn, index, 0, false});
    }

    void arrive(const Event& event) {
        if (event.micro_batch >= costs_.micro_batches) return sum_arrives(event);
        auto& arrived = event.gradient ? gradient_ms_ : activation_ms_;
        const std::size_t at = cell(event.subject, event.micro_batch);
        if (costs_.graph && --(event.gradient ? missing_gradients_ : missing_values_)[at] > 0)
            return;
        arrived[at] = now_ms_;
        start_next(costs_.place.device(event.subject));
    }

    // When the input of an action is there; the last stage's gradient is its own forward's loss
    // (of a graph: that of every stage to which no gradient comes).
    [[nodiscard]] bool input_there(int device, const Action& action) const {
        const std::size_t at = cell(stage_of(device, action), action.micro_batch);
        if (action.kind == ActionKind::kForward) return activation_ms_[at] <= now_ms_;
        return action.kind == ActionKind::kWeightGradient || gradient_ms_[at] <= now_ms_;
    }

    void start_next(int device) {
        const auto d = static_cast<std::size_t>(device);
        if (running_[d] || next_[d] == lists_[d].size()) return;
        const Action& action = lists_[d][next_[d]];
        if (!input_there(device, action)) return;
        const int stage = stage_of(device, action);
        const double end_ms =
            now_ms_ + action_ms(costs_.stages[static_cast<std::size_t>(stage)], action.kind);
        running_[d] = true;
        if (next_[d] == last_backward(d)) begin_last_backward(device, end_ms);
        timeline_.actions.push_back({device, stage, action, now_ms_, end_ms});
        timeline_.update_start_ms[d] = end_ms;
        events_.push({end_ms, EventKind::kActionEnd, device, 0, false});
    }

    void end_action(int device) {
        const auto d = static_cast<std::size_t>(device);
        const Action action = lists_[d][next_[d]];
        const int stage = stage_of(device, action);
        const int m = action.micro_batch;
        ++next_[d];
        running_[d] = false;
        if (costs_.graph) {
            const bool forward = action.kind == ActionKind::kForward;
            if (action.kind != ActionKind::kWeightGradient)
                for (const StageEdge* edge :
                     (forward ? values_ : gradients_)[static_cast<std::size_t>(stage)])
                    if (carries(*edge, m))
                        send(now_ms_, stage, edge->to, m, !forward, edge->transfer);
        } else if (action.kind == ActionKind::kForward) {
            if (stage + 1 < costs_.stage_count()) {
                send(now_ms_, stage, stage + 1, m, false,
                     costs_.forward[static_cast<std::size_t>(stage)]);
            } else {
                gradient_ms_[cell(stage, m)] = now_ms_;
            }
        } else if (action.kind != ActionKind::kWeightGradient && stage > 0) {
            send(now_ms_, stage, stage - 1, m, true,
                 costs_.backward[static_cast<std::size_t>(stage) - 1]);
        }
        start_next(device);
    }

    // Sums of a layer that several devices hold: its home sends the sum once it has all parts and
    // its own is final.
    struct Owed {
        std::size_t parts = 0;
        bool own = false;  // the home's own is final
    };
    [[nodiscard]] std::size_t last_backward(std::size_t d) const {
        if (costs_.sums.empty()) return lists_[d].size();
        std::size_t at = lists_[d].size();
        while (at > 0 && (lists_[d][at - 1].kind == ActionKind::kForward ||
                          lists_[d][at - 1].kind == ActionKind::kInputGradient))
            --at;
        return at - 1;
    }
    void begin_last_backward(int device, double end_ms) {
        for (std::size_t i = 0; i < costs_.sums.size(); ++i) {
            const LayerSums& sums = costs_.sums[i];
            const auto final = [&](double share) {
                events_.push({now_ms_ + share * (end_ms - now_ms_), EventKind::kSum, device,
                              static_cast<int>(i), false});
            };
            if (sums.home == device) final(sums.share);
            for (const LayerSums::Part& part : sums.parts)
                if (part.holder == device) final(part.share);
        }
    }
    void part_final(int device, int index) {
        const auto i = static_cast<std::size_t>(index);
        const LayerSums& sums = costs_.sums[i];
        if (sums.home == device) {
            owed_[i].own = true;
            if (owed_[i].parts == 0) send_sum(i);
            return;
        }
        for (const LayerSums::Part& part : sums.parts)
            if (part.holder == device)
                send(now_ms_, device, sums.home, costs_.micro_batches + 2 * index, true,
                     part.to_home);
    }
    void sum_arrives(const Event& event) {
        const int number = event.micro_batch - costs_.micro_batches;
        const auto i = static_cast<std::size_t>(number / 2);
        if (number % 2 == 1) {
            summed_ms_[static_cast<std::size_t>(event.subject)] = now_ms_;
            return;
        }
        if (--owed_[i].parts == 0 && owed_[i].own) send_sum(i);
    }
    void send_sum(std::size_t i) {
        const LayerSums& sums = costs_.sums[i];
        summed_ms_[static_cast<std::size_t>(sums.home)] = now_ms_;
        for (const LayerSums::Part& part : sums.parts)
            send(now_ms_, sums.home, part.holder,
                 costs_.micro_batches + 2 * static_cast<int>(i) + 1, true, part.back);
    }

    void finish() {
        double busy_ms = 0;
        for (std::size_t d = 0; d < lists_.size(); ++d) {
            ECOPIPE_CHECK(next_[d] == lists_[d].size());  // the lists were no valid schedule
            timeline_.update_start_ms[d] = std::max(timeline_.update_start_ms[d], summed_ms_[d]);
            double update_ms = 0;
            const int device = static_cast<int>(d);
            for (int slice = 0; slice < costs_.place.slices(device); ++slice)
                update_ms +=
                    costs_.stages[static_cast<std::size_t>(costs_.place.stage(device, slice))]
                        .update_ms;
            busy_ms += update_ms;
            timeline_.device_end_ms.push_back(timeline_.update_start_ms[d] + update_ms);
            timeline_.step_ms = std::max(timeline_.step_ms, timeline_.device_end_ms.back());
        }
        for (const ActionSpan& span : timeline_.actions) busy_ms += span.end_ms - span.start_ms;
        const double whole_ms = timeline_.step_ms * static_cast<double>(lists_.size());
        timeline_.bubble_fraction = whole_ms > 0 ? std::clamp(1 - busy_ms / whole_ms, 0.0, 1.0) : 0;
    }

    const PipelineCosts& costs_;
    const std::vector<ActionList>& lists_;
    std::size_t micro_batches_;
    double now_ms_ = 0;
    std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
    std::vector<std::size_t> next_;  // of each device
    std::vector<bool> running_;
    std::vector<double> activation_ms_;  // [stage][micro-batch]: arrival of what its forward needs
    std::vector<double> gradient_ms_;    // and its backward
    // Of a graph: what leaves each stage, and what is missing of each input.
    std::vector<std::vector<const StageEdge*>> values_, gradients_;
    std::vector<int> missing_values_, missing_gradients_;
    std::vector<std::priority_queue<Parcel, std::vector<Parcel>, Parcel::After>> waiting_;
    std::vector<double> free_ms_;
    std::vector<Owed> owed_;         // of each layer's sums
    std::vector<double> summed_ms_;  // a device's last sum is there, or given
    Timeline timeline_;
};

}  // namespace

Timeline simulate(const PipelineCosts& costs, const std::vector<ActionList>& lists) {
    ECOPIPE_CHECK(lists.size() == static_cast<std::size_t>(costs.place.devices()) &&
                  costs.stage_count() == costs.place.stages());
    return Simulation(costs, lists).run();
}

}  // namespace ecopipe
