#include "planner/simulate/memory_frontier.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>

#include "planner/simulate/bounds.h"
#include "planner/simulate/memory_play.h"
#include "planner/simulate/plan_timeline.h"

namespace ecopipe {
namespace {

constexpr std::array kTimes{0.6, 1.0, 1.6};  // as predicted
constexpr double kStep = 0.98;  // of a point's bytes, at least: a smaller step frees nothing

// A slice's choices by rising time, each of which takes less than the one before with so many in
// flight; the first keeps everything.
std::vector<SegmentChoice> descent(const CostModel& model, const StageSpan& span, int in_flight) {
    std::vector<SegmentChoice> out;
    double least = std::numeric_limits<double>::infinity();
    for (SegmentChoice& choice : model.every_choice(span)) {
        if (choice.peak(in_flight) >= least) continue;
        least = choice.peak(in_flight);
        out.push_back(std::move(choice));
    }
    return out;
}

// A device's slices, each somewhere on its own descent.
class DeviceDescent {
  public:
    DeviceDescent(const CostModel& model, const Plan& plan, const std::vector<StageSpan>& spans,
                  const std::vector<HeldStage>& held, const std::string& name)
        : name_(name) {
        for (std::size_t h = 0; h < held.size(); ++h)
            if (held[h].holder.device == name) {
                in_flight_.push_back(model.in_flight_of(plan, held[h]));
                slices_.push_back(descent(model, spans[h], in_flight_.back()));
            }
        at_.resize(slices_.size(), 0);
    }
    [[nodiscard]] MemoryPoint point() const {
        MemoryPoint out;
        for (std::size_t s = 0; s < slices_.size(); ++s) {
            const SegmentChoice& choice = slices_[s][at_[s]];
            out.recompute_ms += choice.recompute_ms;
            out.recomputed.insert(out.recomputed.end(), choice.segments.begin(),
                                  choice.segments.end());
        }
        return out;
    }
    // The slice that frees most for its time takes its next choice; false when all have none.
    bool descend() {
        std::optional<std::size_t> best;
        double most = -1;
        for (std::size_t s = 0; s < slices_.size(); ++s) {
            if (at_[s] + 1 == slices_[s].size()) continue;
            const SegmentChoice& now = slices_[s][at_[s]];
            const SegmentChoice& next = slices_[s][at_[s] + 1];
            const double ms = std::max(1e-9, next.recompute_ms - now.recompute_ms);
            const double worth = (now.peak(in_flight_[s]) - next.peak(in_flight_[s])) / ms;
            if (worth <= most) continue;
            most = worth;
            best = s;
        }
        if (!best) return false;
        ++at_[*best];
        return true;
    }
    // The plan with this device at a point.
    [[nodiscard]] Plan at(const MemoryPoint& point, Plan plan) const {
        for (StagePlan& stage : plan.stages) {
            const LayerRange layers{stage.first_layer, stage.last_layer};
            if (stage.device == name_) stage.recomputed = within(point.recomputed, layers);
            for (StageHolder& twin : stage.twins)
                if (twin.device == name_) twin.recomputed = within(point.recomputed, layers);
        }
        return plan;
    }

  private:
    std::string name_;
    std::vector<std::vector<SegmentChoice>> slices_;
    std::vector<int> in_flight_;
    std::vector<std::size_t> at_;  // of each slice's choices
};

// What the plan itself has the device do.
MemoryPoint planned_point(const Plan& plan, const std::vector<HeldStage>& held,
                          const PipelineCosts& costs, const std::string& device) {
    MemoryPoint out;
    out.recomputed = recomputed_on(plan, device);
    for (std::size_t h = 0; h < held.size(); ++h)
        if (held[h].holder.device == device) out.recompute_ms += costs.stages[h].recompute_ms;
    return out;
}

// Those that no other betters, from the quickest on, each a step apart: `own` in place of what is
// nearly it.
std::vector<MemoryPoint> lower_edge(std::vector<MemoryPoint> points, const Segments& own) {
    std::stable_sort(points.begin(), points.end(), [](const auto& a, const auto& b) {
        return a.recompute_ms != b.recompute_ms ? a.recompute_ms < b.recompute_ms
                                                : a.peak_bytes < b.peak_bytes;
    });
    std::vector<MemoryPoint> out;
    const auto a_step_apart = [&](const MemoryPoint& point) {
        return out.empty() || static_cast<double>(point.peak_bytes) <=
                                  kStep * static_cast<double>(out.back().peak_bytes);
    };
    for (MemoryPoint& point : points) {
        const bool apart = a_step_apart(point);
        const bool is_own = point.recomputed == own;
        if (!apart && !(is_own && point.peak_bytes < out.back().peak_bytes)) continue;
        if (!apart && out.size() > 1) out.pop_back();
        out.push_back(std::move(point));
    }
    return out;
}

// The most that the device takes, be it as quick as predicted, quicker or slower: then more of what
// others send waits for it, or less.
Result<std::uint64_t> played_bytes(const CostModel& model, const Plan& plan, std::size_t place) {
    ECOPIPE_ASSIGN_OR_RETURN(PlayedPlan played, play_plan(model, plan, "plan"));
    const PipelineCosts predicted = played.costs;
    const std::vector<HeldStage> held = held_stages(plan);
    std::uint64_t most = 0;
    for (const double times : kTimes) {
        played.costs = predicted;
        for (std::size_t h = 0; h < held.size(); ++h)
            if (held[h].holder.device == held[place].holder.device) {
                StageCost& cost = played.costs.stages[h];
                cost.forward_ms *= times;
                cost.backward_ms *= times;
                cost.input_gradient_ms *= times;
                cost.weight_gradient_ms *= times;
            }
        played.timeline = simulate(played.costs, played.lists);
        most = std::max(most, step_memory(played, plan)[place].total());
    }
    return most;
}

}  // namespace

Result<void> add_frontiers(const CostModel& model, Plan& plan) {
    ECOPIPE_ASSIGN_OR_RETURN(const PlayedPlan played, play_plan(model, plan, "plan"));
    const std::vector<HeldStage> held = held_stages(plan);
    const bool split = backward_kind(played.lists) != BackwardKind::kWhole;
    plan.frontiers.clear();
    for (std::size_t place = 0; place < played.lists.size(); ++place) {
        const std::string name = held[place].holder.device;
        DeviceDescent device(model, plan, played.spans, held, name);
        std::vector<MemoryPoint> points{planned_point(plan, held, played.costs, name)};
        const Segments own = points.front().recomputed;
        do points.push_back(device.point());
        while (!split && device.descend());
        for (MemoryPoint& point : points) {
            ECOPIPE_ASSIGN_OR_RETURN(point.peak_bytes,
                                     played_bytes(model, device.at(point, plan), place));
        }
        plan.frontiers[name] = lower_edge(std::move(points), own);
    }
    return {};
}

}  // namespace ecopipe
