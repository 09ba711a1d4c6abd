#pragma once
// What the search moves about: stages with their in-flight counts and simulated step, and which of
// two is the better.

#include <limits>
#include <vector>

#include "planner/cost/cost_model.h"
#include "planner/search/in_flight.h"

namespace ecopipe {

struct Arrangement {
    std::vector<StageSpan> stages;
    std::vector<int> in_flight;
    double step_ms = std::numeric_limits<double>::infinity();
};

// A shorter step; among equals fewer devices, then the cluster file's order, no recompute, smaller
// K, earlier cuts.
[[nodiscard]] bool better(const Arrangement& a, const Arrangement& b);

// Simulates arrangements of one model under one schedule, and keeps the best.
class Appraiser {
  public:
    Appraiser(const CostModel& model, const Schedule& schedule)
        : model_(model),
          schedule_(schedule),
          chooser_(schedule, model.micro_batches()),
          segment_work_(model.segment_work()) {}

    // The stages' in-flight caps; empty when one of them does not fit its device under this
    // schedule.
    [[nodiscard]] std::vector<int> caps(const std::vector<StageSpan>& stages) const;
    // The best in-flight counts for these stages, simulated; an infinite step when they do not fit.
    // `vectors_max` as in InFlightChooser::choose. Keeps the result if it is the best so far.
    Arrangement appraise(const std::vector<StageSpan>& stages, int vectors_max);
    // One or two simulations with `wished` in-flight counts (InFlightChooser::below), which become
    // those used. Infinite when the stages do not fit; above `limit_ms` not exact.
    [[nodiscard]] double below_ms(const std::vector<StageSpan>& stages, std::vector<int>& wished,
                                  double limit_ms);
    // A bound on what appraise can find, from the pipeline's bound and the caps.
    [[nodiscard]] double bound_ms(const PipelineCosts& costs, const std::vector<int>& caps) const;
    // The best so far with the smallest in-flight counts; no stages when nothing fits.
    [[nodiscard]] Arrangement finish(int vectors_max);

    // Keeps `arrangement`, simulated by the caller, if it is the best so far.
    void offer(const Arrangement& arrangement) {
        if (better(arrangement, best_)) best_ = arrangement;
    }

    [[nodiscard]] const Arrangement& best() const { return best_; }
    [[nodiscard]] const CostModel& model() const { return model_; }
    [[nodiscard]] const Schedule& schedule() const { return schedule_; }
    [[nodiscard]] std::uint64_t work() const {
        return chooser_.work() + extra_work_ + model_.segment_work() - segment_work_;
    }
    void add_work(std::uint64_t actions) { extra_work_ += actions; }  // of the caller's own

  private:
    // Of a graph: lets the chooser know what waits where, and counts the pricing as work.
    void share_room(const std::vector<StageSpan>& stages);

    const CostModel& model_;
    const Schedule& schedule_;
    InFlightChooser chooser_;
    Arrangement best_;
    PipelineCosts costs_;  // of the arrangement at hand
    std::uint64_t extra_work_ = 0;
    std::uint64_t segment_work_;  // the model's, at first
};

}  // namespace ecopipe
