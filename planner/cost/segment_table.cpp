#include "planner/cost/segment_table.h"

#include <algorithm>

namespace ecopipe {
namespace {

constexpr int kTogether = 10;
constexpr std::uint64_t kEntryCost = 4000;
constexpr std::uint64_t kChoiceCost = 200;  // of each that is among the best

}  // namespace

std::vector<SegmentChoice> grouped_choices(const SliceLayers& slice, int first, double room) {
    const CoarseSlice coarse = coarser(slice, kTogether);
    std::vector<SegmentChoice> best = best_choices(coarse.slice, room);
    for (SegmentChoice& choice : best) {
        choice.segments = coarse.of_layers(choice.segments);
        for (LayerRange& segment : choice.segments)
            segment = {segment.first + first, segment.last + first};
    }
    return best;
}

SegmentTable::Entry SegmentTable::made(const SliceLayers& slice, int first, double room,
                                       int count_max) {
    Entry entry;
    entry.best = grouped_choices(slice, first, room);
    work_ += kEntryCost + kChoiceCost * entry.best.size();
    // More in flight take no less: the search goes on where it stopped.
    auto fits = entry.best.begin();
    for (int count = 1; count <= count_max; ++count) {
        fits = std::find_if(fits, entry.best.end(), [&](const SegmentChoice& choice) {
            return choice.peak(count) <= room;
        });
        if (fits == entry.best.end()) break;
        entry.recompute_ms.push_back(fits->recompute_ms);
    }
    return entry;
}

}  // namespace ecopipe
