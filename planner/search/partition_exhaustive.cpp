#include "planner/search/partition_exhaustive.h"

#include <algorithm>

#include "planner/simulate/bounds.h"

namespace ecopipe {
namespace {

constexpr std::uint64_t kNodeCost = 6;  // of one partial arrangement, in actions of the recurrence
constexpr std::uint64_t kGraphNodeCost = 400;  // the same of a graph

class BranchAndBound {
  public:
    BranchAndBound(Appraiser& appraiser, int vectors_max, std::uint64_t work_max)
        : appraiser_(appraiser),
          model_(appraiser.model()),
          vectors_max_(vectors_max),
          work_max_(work_max),
          used_(static_cast<std::size_t>(model_.devices()), false),
          split_(appraiser.schedule().splits_backward) {
        for (const auto& [ends, link] : model_.cluster().links) media_ |= !link.medium.empty();
        media_ |= !model_.cluster().default_link.medium.empty();
        measure_rest();
    }

    bool run() {
        int atoms = 0;
        for (int layer = 0; layer < model_.layers(); ++layer)
            atoms += model_.may_cut_before(layer) ? 1 : 0;
        for (wanted_ = 1; wanted_ <= std::min(model_.devices(), atoms) && !exhausted_; ++wanted_)
            place(0, 0, 0, model_.micro_batches());
        return !exhausted_;
    }

  private:
    // rest_[layer]: the least work of one micro-batch from `layer` on, each layer on its fastest
    // device.
    void measure_rest() {
        const int layers = model_.layers();
        rest_.assign(static_cast<std::size_t>(layers) + 1, 0);
        speed_.assign(used_.size(), 0);
        for (int layer = layers - 1; layer >= 0; --layer) {
            const auto at = static_cast<std::size_t>(layer);
            double least = work({0, layer, layer, false});
            for (int d = 1; d < model_.devices(); ++d)
                least = std::min(least, work({d, layer, layer, false}));
            rest_[at] = rest_[at + 1] + least;
            if (least <= 0) continue;
            for (int d = 0; d < model_.devices(); ++d) {
                double& speed = speed_[static_cast<std::size_t>(d)];
                speed = std::max(speed, least / work({d, layer, layer, false}));
            }
        }
    }
    [[nodiscard]] double work(const StageSpan& span) const {
        return model_.work_ms(span.device, span.first, span.last, split_);
    }

    // Whether an arrangement that begins as the current one and takes at least `ms` can still be
    // the best.
    [[nodiscard]] bool promising(double ms) const {
        const Arrangement& best = appraiser_.best();
        if (step_less(best.step_ms, ms)) return false;
        if (best.stages.empty() || step_less(ms, best.step_ms)) return true;
        const auto count = static_cast<std::size_t>(wanted_);
        if (count != best.stages.size()) return count < best.stages.size();
        for (std::size_t s = 0; s < stages_.size(); ++s)
            if (stages_[s].device != best.stages[s].device)
                return stages_[s].device < best.stages[s].device;
        return true;
    }

    // `head_ms`, `tail_ms`: from t = 0 to the end of the forward of the last placed stage, and from
    // the start of its backward to the end of the step. `cap`: the most micro-batches in flight
    // that the stages so far allow.
    void place(int first, double head_ms, double tail_ms, int cap) {
        const auto s = stages_.size();
        for (int device = 0; device < model_.devices() && !exhausted_; ++device) {
            if (used_[static_cast<std::size_t>(device)]) continue;
            const int from =
                s == 0 ? static_cast<int>(model_.cluster().portal) : stages_.back().device;
            // Of a graph graph_bound_ms knows all ways.
            const double way = model_.is_graph() ? 0
                                                 : model_.output_ms(first - 1, from, device) +
                                                       model_.latency_ms(from, device);
            const double head = head_ms + way;
            const double back = model_.returns_gradient(first - 1) ? way : 0;
            const double tail = s == 0 ? 0 : tail_ms + back;
            used_[static_cast<std::size_t>(device)] = true;
            extend(device, first, head, tail, cap);
            used_[static_cast<std::size_t>(device)] = false;
        }
    }

    void extend(int device, int first, double head_ms, double tail_ms, int cap) {
        const bool last_stage = static_cast<int>(stages_.size()) + 1 == wanted_;
        const int layers = model_.layers();
        for (int last = last_stage ? layers - 1 : first; last < layers; ++last) {
            if (last + 1 < layers && !model_.may_cut_before(last + 1)) continue;
            if (!last_stage && last + 1 == layers) return;
            const StageSpan plain{device, first, last, false};
            spend();
            if (exhausted_) return;
            stages_.push_back(plain);
            const bool hopeless =
                !promising(model_.is_graph() ? placed_ms()
                                             : head_ms + model_.micro_batches() * work(plain) +
                                                   (split_ ? 0 : tail_ms));
            stages_.pop_back();
            if (hopeless) return;  // more layers only take longer
            const int plain_cap = model_.in_flight_cap(plain);
            descend(plain, plain_cap, head_ms, tail_ms, cap);
            // Recomputing costs time and buys micro-batches in flight; with a shared medium, a
            // longer action may shorten the step, so there nothing is left out.
            if (!split_ && (plain_cap < cap || media_ || memory_may_bind(plain))) {
                const StageSpan again{device, first, last, true};
                descend(again, model_.in_flight_cap(again), head_ms, tail_ms, cap);
            }
            if (exhausted_) return;
        }
    }

    void spend() {
        appraiser_.add_work(model_.is_graph() ? kGraphNodeCost : kNodeCost);
        exhausted_ |= appraiser_.work() > work_max_;
    }

    // A bound for every pipeline of the graph that begins with the stages placed so far.
    [[nodiscard]] double placed_ms() const {
        PipelineCosts costs;
        model_.pipeline_into(stages_, costs);
        return graph_bound_ms(costs, split_ ? BackwardKind::kSplit : BackwardKind::kWhole);
    }
    // Whether memory may keep a graph's other stages from having all micro-batches in flight.
    [[nodiscard]] bool memory_may_bind(const StageSpan& plain) const {
        if (!model_.is_graph()) return false;
        const int all = model_.micro_batches();
        return model_.stage_memory(plain).peak(all) + all * model_.entering_bytes(plain) >
               model_.budget_bytes(plain.device);
    }

    void descend(const StageSpan& stage, int own_cap, double head_ms, double tail_ms, int cap) {
        if (own_cap < (appraiser_.schedule().holds_all() ? model_.micro_batches() : 1)) return;
        spend();
        const StageCost cost = model_.stage_cost(stage, 1);
        const double back = split_ ? cost.input_gradient_ms : cost.backward_ms;
        const double m = model_.micro_batches();
        stages_.push_back(stage);
        if (static_cast<int>(stages_.size()) == wanted_) {
            leaf();
        } else if (model_.is_graph()) {
            // What is left may run beside what is placed.
            if (promising(placed_ms()) && promising(m * rest_share(stage.last + 1)))
                place(stage.last + 1, 0, 0, std::min(cap, own_cap));
        } else if (promising(head_ms + m * (cost.forward_ms + back) + tail_ms) &&
                   promising(head_ms + cost.forward_ms + m * rest_share(stage.last + 1) + back +
                             tail_ms)) {
            place(stage.last + 1, head_ms + cost.forward_ms, tail_ms + back,
                  std::min(cap, own_cap));
        }
        stages_.pop_back();
    }

    // The layers from `layer` on, spread evenly over the devices that are left.
    [[nodiscard]] double rest_share(int layer) const {
        double speed = 0;
        for (std::size_t d = 0; d < used_.size(); ++d) speed += used_[d] ? 0 : speed_[d];
        // With weight gradients apart, those of the rest may run while the gradients are on their
        // way up.
        return speed > 0 && !split_ ? rest_[static_cast<std::size_t>(layer)] / speed : 0;
    }

    void leaf() {
        const std::vector<int> caps = appraiser_.caps(stages_);
        if (caps.empty()) return;
        PipelineCosts costs;
        model_.pipeline_into(stages_, costs);
        if (promising(appraiser_.bound_ms(costs, caps))) appraiser_.appraise(stages_, vectors_max_);
    }

    Appraiser& appraiser_;
    const CostModel& model_;
    int vectors_max_;
    std::uint64_t work_max_;
    std::vector<bool> used_;
    bool split_;
    bool media_ = false;
    std::vector<double> rest_;
    std::vector<double> speed_;
    std::vector<StageSpan> stages_;
    int wanted_ = 1;
    bool exhausted_ = false;
};

}  // namespace

bool search_exhaustively(Appraiser& appraiser, int vectors_max, std::uint64_t work_max) {
    return BranchAndBound(appraiser, vectors_max, work_max).run();
}

}  // namespace ecopipe
