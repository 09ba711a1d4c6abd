#pragma once
// Which layers of a slice run forward a second time, before their backward. Pure.

#include <vector>

#include "domain/plan.h"
#include "domain/value_graph.h"

namespace ecopipe {

class SegmentMap {
  public:
    SegmentMap() = default;  // of no layers
    // Of the recomputed segments of a slice those count in which something runs backward.
    SegmentMap(const Segments& recomputed, LayerRange slice, const ValueGraph& flow);

    // Of the slice's layer i, counted from 0, the number of its segment; -1: it keeps what its
    // backward needs.
    [[nodiscard]] int of(std::size_t i) const { return of_[i]; }
    [[nodiscard]] bool ends_at(std::size_t i) const {
        return of_[i] >= 0 && (i + 1 == of_.size() || of_[i + 1] != of_[i]);
    }
    // Its layers, as the model counts them, and as the slice does.
    [[nodiscard]] LayerRange layers(int number) const {
        return segments_[static_cast<std::size_t>(number)];
    }
    [[nodiscard]] LayerRange own_layers(int number) const {
        const LayerRange segment = layers(number);
        return {segment.first - first_, segment.last - first_};
    }

  private:
    int first_ = 0;  // of the slice
    Segments segments_;
    std::vector<int> of_;
};

}  // namespace ecopipe
