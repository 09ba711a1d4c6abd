#include "stage_runtime/engine/run/segment_map.h"

#include <algorithm>

#include "core/check.h"

namespace ecopipe {

SegmentMap::SegmentMap(const Segments& recomputed, LayerRange slice, const ValueGraph& flow)
    : first_(slice.first), of_(static_cast<std::size_t>(slice.size()), -1) {
    for (const LayerRange& segment : recomputed) {
        ECOPIPE_CHECK(slice.contains(segment.first) && slice.contains(segment.last));
        bool backward = false;
        for (int layer = segment.first; layer <= segment.last; ++layer)
            backward = backward || flow.runs_backward(layer);
        if (!backward) continue;
        const auto first = of_.begin() + (segment.first - slice.first);
        std::fill(first, first + segment.size(), static_cast<int>(segments_.size()));
        segments_.push_back(segment);
    }
}

}  // namespace ecopipe
