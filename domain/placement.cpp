#include "domain/placement.h"

#include <algorithm>

#include "core/check.h"

namespace ecopipe {

Placement Placement::cyclic(int devices, int slices) {
    ECOPIPE_CHECK(devices >= 1 && slices >= 1);
    Placement out;
    out.devices_ = devices;
    out.stages_ = devices * slices;
    return out;
}

Placement Placement::folded(int devices) {
    std::vector<int> there_and_back;
    for (int device = 0; device < devices; ++device) there_and_back.push_back(device);
    for (int device = devices; device-- > 0;) there_and_back.push_back(device);
    return of(there_and_back);
}

Placement Placement::of(const std::vector<int>& devices) {
    ECOPIPE_CHECK(!devices.empty());
    Placement out;
    std::vector<int> seen;
    for (const int device : devices) {
        const auto found = std::find(seen.begin(), seen.end(), device);
        const auto number = static_cast<std::size_t>(found - seen.begin());
        if (found == seen.end()) {
            seen.push_back(device);
            out.held_.emplace_back();
        }
        out.slice_.push_back(static_cast<int>(out.held_[number].size()));
        out.held_[number].push_back(static_cast<int>(out.device_.size()));
        out.device_.push_back(static_cast<int>(number));
    }
    out.devices_ = static_cast<int>(seen.size());
    out.stages_ = static_cast<int>(devices.size());
    for (int stage = 0; stage < out.stages_; ++stage)
        if (out.device(stage) != stage % out.devices_) return out;
    return out.stages_ % out.devices_ == 0 ? cyclic(out.devices_, out.stages_ / out.devices_) : out;
}

}  // namespace ecopipe
