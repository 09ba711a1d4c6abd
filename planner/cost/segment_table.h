#pragma once
// What recomputation can do for each stage that a search looks at, found once: of its layers taken
// together to a few, since a search asks this of thousands of stages and decides by differences
// that are larger. The plan that it ends with has the best of all (CostModel::segments_for).

#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "planner/cost/graph_ways.h"
#include "planner/cost/segments.h"

namespace ecopipe {

// best_choices of a slice that begins with a model's layer `first`, its layers taken together to a
// few, in the model's layers.
[[nodiscard]] std::vector<SegmentChoice> grouped_choices(const SliceLayers& slice, int first,
                                                         double room);

class SegmentTable {
  public:
    struct Entry {
        std::vector<SegmentChoice> best;  // grouped_choices
        // [k - 1]: the least recomputation with k in flight, a micro-batch; as many as fit.
        std::vector<double> recompute_ms;
    };
    // `slice()`: the layers; `room`: beside weights, gradients and moments; `count_max`: of
    // micro-batches in flight. The entry stays where it is.
    template <class Slice>
    const Entry& of(const StageSpan& span, double room, int count_max, const Slice& slice) {
        const auto [at, added] = entries_.try_emplace({span.device, span.first, span.last});
        if (added) at->second = made(slice(), span.first, room, count_max);
        return at->second;
    }
    // Since the start, in actions of a simulation.
    [[nodiscard]] std::uint64_t work() const { return work_; }

  private:
    [[nodiscard]] Entry made(const SliceLayers& slice, int first, double room, int count_max);

    std::map<std::tuple<int, int, int>, Entry> entries_;
    std::uint64_t work_ = 0;
};

}  // namespace ecopipe
