#pragma once
// How many micro-batches each stage of a pipeline should have in flight: the K_s whose simulated
// step is the shortest.
//
// The problem: with too few in flight a stage waits for gradients that are still on their way back.
// More take memory, which the caps bound, and are not always faster: a stage runs its K_s forwards
// before its first backward, and until then all before it have no gradient. What suits one stage
// depends on the others (pace.h), so no formula gives the best counts of unequal devices. All are
// tried where they are few, else the known rules and their neighbours.

#include <cstdint>
#include <limits>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "planner/cost/cost_model.h"
#include "planner/cost/pipeline_costs.h"
#include "planner/schedule/schedule.h"
#include "planner/simulate/pace.h"
#include "planner/simulate/recurrence.h"
#include "planner/simulate/wavefront.h"

namespace ecopipe {

[[nodiscard]] bool step_less(double a, double b);  // shorter by more than rounding, 1e-10 of it

// Which counts fit memory together, where caps do not say it all: in a graph a stage also holds
// what waits there for its makers' other micro-batches (waiting_bytes). One in flight everywhere
// fits whenever the caps allow it.
struct SharedRoom {
    struct Stage {
        StageMemory memory;  // where it recomputes, that of its state alone
        double budget_bytes = 0;
        // What it may recompute, the quickest first; none: it keeps everything.
        const std::vector<SegmentChoice>* choices = nullptr;
    };
    std::vector<StageLoad> skips;  // none: the caps say it all
    std::vector<Stage> stages;
    [[nodiscard]] bool holds(const std::vector<int>& in_flight) const;
    // The quickest of its choices that fits beside what waits; nullptr where none does.
    [[nodiscard]] const SegmentChoice* choice(std::size_t stage,
                                              const std::vector<int>& in_flight) const;

  private:
    [[nodiscard]] double left_bytes(std::size_t stage, const std::vector<int>& in_flight) const;
};

struct InFlightChoice {
    std::vector<int> in_flight;  // one a stage, not increasing
    double step_ms = 0;
};

// For one schedule and micro-batch count. Keeps action lists and scratch memory between calls. Not
// thread-safe.
class InFlightChooser {
  public:
    // `schedule`: not by actions; of the registry, or one that lives as long.
    InFlightChooser(const Schedule& schedule, int micro_batches)
        : schedule_(&schedule), micro_batches_(micro_batches) {}

    // From now on only counts that fit together are chosen.
    void share(SharedRoom room) { room_ = std::move(room); }

    // Every count vector is tried, in rising order, when there are at most `vectors_max`; otherwise
    // the best of the known rules (2(S-s)-1, S-s, M; research/pipeline.md 7.4) is improved
    // coordinate by coordinate (not for steps of more than 20,000 actions). Stops at `bound_ms`,
    // below which no step can be. `caps`: what memory allows each stage, at least 1. Where all
    // micro-batches are held there is no choice: M, whatever the caps.
    [[nodiscard]] InFlightChoice choose(const PipelineCosts& costs, const std::vector<int>& caps,
                                        double bound_ms, int vectors_max);
    // The one rule K_s = min(cap, 2(S-s)-1), without a search.
    [[nodiscard]] InFlightChoice rule(const PipelineCosts& costs, const std::vector<int>& caps);
    // For a search that has no use for a step above `limit_ms` (see step_ms): `wished`
    // counts as far as the caps allow, in one simulation; when they are those of another number of
    // stages, the better of that rule and the least counts for the best pace that the caps allow
    // (pace.h), in two.
    [[nodiscard]] InFlightChoice below(const PipelineCosts& costs, const std::vector<int>& caps,
                                       const std::vector<int>& wished, double limit_ms);
    // The smallest counts (in lexicographic order, when all can be tried; else by lowering one
    // after the other) with which the step stays as short.
    void lower(const PipelineCosts& costs, const std::vector<int>& caps, int vectors_max,
               InFlightChoice& choice);

    // Exact up to `limit_ms`; above it only that it is above, and often infinite.
    [[nodiscard]] double step_ms(const PipelineCosts& costs, const std::vector<int>& in_flight,
                                 double limit_ms = std::numeric_limits<double>::infinity());
    [[nodiscard]] std::vector<ActionList> lists(const std::vector<int>& in_flight) const;
    // Actions simulated since the start: the search's measure of effort, the same on every machine.
    [[nodiscard]] std::uint64_t work() const { return work_; }

  private:
    [[nodiscard]] double wave_ms(const PipelineCosts& costs, const std::vector<int>& in_flight,
                                 double limit_ms);
    // The costs with these counts (StageCost::recompute_at), and beside what waits.
    [[nodiscard]] const PipelineCosts& at_counts(const PipelineCosts& costs,
                                                 const std::vector<int>& in_flight);
    [[nodiscard]] ActionList list(int stage, int stages, int in_flight) const;
    [[nodiscard]] std::vector<int> ruled(const std::vector<int>& caps) const;
    [[nodiscard]] std::vector<int> capped(const std::vector<int>& caps) const;
    [[nodiscard]] std::vector<int> held(std::vector<int> counts) const;
    void try_all(const PipelineCosts& costs, const std::vector<int>& caps, double bound_ms,
                 InFlightChoice& best);
    void improve(const PipelineCosts& costs, const std::vector<int>& caps, double bound_ms,
                 InFlightChoice& best);
    void try_paces(const PipelineCosts& costs, const std::vector<int>& caps, InFlightChoice& best);
    double find_pace(const PipelineCosts& costs, const std::vector<int>& caps);
    bool try_one(const PipelineCosts& costs, const std::vector<int>& in_flight,
                 InFlightChoice& best);

    const Schedule* schedule_;
    int micro_batches_;
    SharedRoom room_;
    std::uint64_t work_ = 0;
    Recurrence recurrence_;
    Wavefront wavefront_;
    std::vector<WaveStage> wave_;
    PipelineCosts priced_;
    // Lists that are no one_f_one_b_actions, by count, stage and stages. Node addresses are stable.
    std::map<std::tuple<int, int, int>, ActionList> cache_;
    std::vector<const ActionList*> chosen_;
    std::vector<PaceStage> pace_;
    std::vector<int> paced_;  // the counts that find_pace found
};

}  // namespace ecopipe
