#include "fl_server/numbers/samples_cap.h"

#include <algorithm>
#include <cmath>

namespace ecopipe {

std::uint64_t samples_cap(std::vector<std::uint64_t> told, double weight_max) {
    std::erase(told, 0U);
    if (told.size() < kCapFromClusters || weight_max <= 0) return UINT64_MAX;
    const auto middle = told.begin() + static_cast<std::ptrdiff_t>((told.size() - 1) / 2);
    std::nth_element(told.begin(), middle, told.end());
    const double cap = std::floor(weight_max * static_cast<double>(*middle));
    return cap < 0x1p63 ? std::max(std::uint64_t{1}, static_cast<std::uint64_t>(cap)) : UINT64_MAX;
}

}  // namespace ecopipe
