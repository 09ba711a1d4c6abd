#pragma once
// The cuts of a device order for a wanted step time: every stage takes as many layers as the time
// allows.
//
// Where to cut is hard to say, but whether a step of T ms can be kept is easy: whoever comes first
// takes as much as T allows, since leaving layers to later devices helps nobody. So the search goes
// over orders alone, and T is found by halving. In chains-on-chains partitioning this is the probe
// (Pinar and Aykanat, "Fast optimal load balancing algorithms for 1D partitioning", 2004), where it
// is exact; here it is not quite, for what a cut sends and what a stage must hold also count.

#include <optional>

#include "planner/search/layout.h"

namespace ecopipe {

// For one model, schedule and micro-batch count. O(devices * log atoms) a packing.
class Packer {
  public:
    Packer(const CostModel& model, const Schedule& schedule);

    // Goes down `order` and gives each device the most atoms with which head + M * stage + tail and
    // its outgoing link stay within `step_ms` and its memory holds the in-flight micro-batches of a
    // pipeline of `stages_expected` (recomputing where that needs it); stops when no atom is left.
    // Nothing when the devices end first.
    [[nodiscard]] std::optional<Layout> pack(const std::vector<int>& order, double step_ms,
                                             int stages_expected) const;

  private:
    struct Way {
        double head_ms, tail_ms;
        int needed;  // micro-batches in flight
    };
    [[nodiscard]] bool fits(int device, int begin, int end, const Way& way, double step_ms) const;
    [[nodiscard]] StageSpan span(int device, int begin, int end) const;

    const CostModel& model_;
    const Schedule& schedule_;
    std::vector<int> first_layer_;  // of each atom, and the layer count
};

}  // namespace ecopipe
