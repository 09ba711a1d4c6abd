#pragma once
// Cuts and devices without the rest, as the local search changes them, and a quick estimate of
// their step.
//
// Why an estimate: a simulation looks at every action of every stage, the estimate at the stages
// and their pairs, however many micro-batches there are. Annealing so sees many more layouts in the
// same time. It is off by several per cent where memory caps the counts: it ranks, and does not
// decide.

#include <vector>

#include "planner/search/arrangement.h"
#include "planner/simulate/pace.h"

namespace ecopipe {

// Layers that may not be parted are one atom. Stage s runs atoms ends[s-1]..ends[s]-1 on
// devices[s].
struct Layout {
    std::vector<int> devices;
    std::vector<int> ends;
    friend bool operator==(const Layout&, const Layout&) = default;
};

// Knows a model's atoms and estimates layouts of them under one schedule. Not thread-safe: keeps
// scratch memory.
class LayoutEstimator {
  public:
    LayoutEstimator(const CostModel& model, const Schedule& schedule);

    [[nodiscard]] int atoms() const { return static_cast<int>(first_layer_.size()) - 1; }
    // The layout's stages, each recomputing when that is estimated to be faster under its memory;
    // without regard to memory where nothing fits.
    [[nodiscard]] std::vector<StageSpan> stages(const Layout& layout);
    // The layout of stages.
    [[nodiscard]] Layout layout(const std::vector<StageSpan>& stages) const;
    // The same, none of them recomputing.
    [[nodiscard]] std::vector<StageSpan> plain_stages(const Layout& layout) const;
    // head + M * stage + tail, the largest over the stages, their links, and the cycles that the
    // in-flight counts close (pace.h); of a graph a bound along its edges. What does not fit is
    // priced far above everything that does, by how much it misses.
    [[nodiscard]] double step_ms(const Layout& layout);
    // What a step's share of work is: forward and backward of atoms [begin, end) on a device, a
    // micro-batch.
    [[nodiscard]] double work_ms(int device, int begin, int end) const;

  private:
    struct Choice {
        StageSpan span;
        double forward_ms, back_ms, rest_ms;
        int cap;
        double missing;  // memory that is short, as a share of the device's; 0 when it fits
    };
    [[nodiscard]] Choice choice(const StageSpan& span) const;
    void choose_stages(const Layout& layout);
    [[nodiscard]] double pace_with(const Choice& choice, std::size_t s, double pace_ms);
    [[nodiscard]] double travel_ms(const Layout& layout, std::size_t s, int last_layer) const;
    [[nodiscard]] double step_at_counts(const Layout& layout) const;
    [[nodiscard]] double graph_step_ms();

    const CostModel& model_;
    const Schedule& schedule_;
    std::vector<int> first_layer_;  // of each atom, and the layer count
    std::vector<Choice> chosen_;
    std::vector<PaceStage> pace_;
    std::vector<int> caps_;
    std::vector<int> counts_;
    PipelineCosts costs_;  // of a graph's layout at hand
};

// The cut with the least largest stage time (f + b) for these devices in this order, all of them
// used; an empty layout when there are fewer atoms than devices. O(devices * atoms^2).
[[nodiscard]] Layout least_largest_stage(const LayoutEstimator& estimator,
                                         const std::vector<int>& devices);
// Atoms dealt evenly by count.
[[nodiscard]] Layout even_layout(const LayoutEstimator& estimator, const std::vector<int>& devices);

}  // namespace ecopipe
