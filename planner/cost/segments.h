#pragma once
// Which layers of a stage should run forward a second time so that it fits its memory: those that
// cost the least time.
//
// The problem: what a stage keeps of each micro-batch from its forward to its backward (its stash)
// is most of its memory. A run of layers that is recomputed, a segment, keeps what enters it alone;
// while its backward runs it has its whole stash again, of the one micro-batch. So long segments
// keep little and take much at once, short ones the other way round, and layers that are quick and
// keep much are worth more than others. Which to choose depends on how many micro-batches are in
// flight: each holds `held`, one of them `running`. Checkmate (Jain et al., MLSys 2020) chooses
// tensor by tensor, by an integer program. With segments of consecutive layers a slice's layers
// are walked once, from first to last, and of all choices so far only those are followed that
// no other betters in `held`, `running` and time at once: exact, and quick.
//
// Pure numbers; bytes are of one micro-batch.

#include <functional>
#include <optional>
#include <vector>

#include "domain/plan.h"

namespace ecopipe {

struct SliceLayer {
    double forward_ms = 0;
    double stash = 0;      // kept for its backward, its input included
    double workspace = 0;  // beside that while it runs; its output is part of it
    double passing = 0;    // beside what enters it while it runs and keeps nothing
    double output = 0;
    // Kept for its backward too where no layer behind it, in the slice or the segment, keeps it.
    double kept_output = 0;
    bool may_begin = true;  // a segment, and so the one before may end
};

struct SliceLayers {
    std::vector<SliceLayer> layers;
    // What enters layers first..last, counted from 0, from layers before them.
    std::function<double(int first, int last)> entering;
    double running_whole = 0;  // what `running` is at least when all are one segment
};

struct SegmentChoice {
    Segments segments;        // counted from 0
    double held = 0;          // of each micro-batch between its forward and its backward
    double running = 0;       // of the one whose forward or backward runs, when it takes most
    double recompute_ms = 0;  // a micro-batch
    [[nodiscard]] double peak(int in_flight) const { return (in_flight - 1) * held + running; }
};

// Neighbours taken together until there are at most so many: a choice for those is one for the
// layers, and takes no more than it says.
struct CoarseSlice {
    SliceLayers slice;
    std::vector<int> first;  // the layer that each begins with, and the layer count
    [[nodiscard]] Segments of_layers(const Segments& segments) const;
};
[[nodiscard]] CoarseSlice coarser(const SliceLayers& slice, int count_max);

// The footprint of given segments.
[[nodiscard]] SegmentChoice footprint(const SliceLayers& slice, const Segments& segments);
// The least time with which so many micro-batches take at most `room` bytes; of equal ones the
// least memory. Nothing where none does.
[[nodiscard]] std::optional<SegmentChoice> least_recomputation(const SliceLayers& slice,
                                                               int in_flight, double room);
// By recompute_ms, all that no other betters in held, running and that at once, of those of which
// one micro-batch fits in `room`.
[[nodiscard]] std::vector<SegmentChoice> best_choices(const SliceLayers& slice, double room);
// The least peak that any choice has.
[[nodiscard]] double least_peak(const SliceLayers& slice, int in_flight);

}  // namespace ecopipe
