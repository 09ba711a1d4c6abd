#pragma once
// How far the labels of some clients are from those of all.

#include <cstdint>
#include <vector>

namespace ecopipe {

// Label counts of one client or the sum over many; may be of different length, missing ones are 0.
using LabelCounts = std::vector<double>;

void add_counts(LabelCounts& sum, const std::vector<std::uint64_t>& counts, double sign = 1);

// Jensen-Shannon divergence of the normalised counts, in nats: 0 to ln 2. With nothing counted on
// either side there is nothing to tell apart: 0.
[[nodiscard]] double js_divergence(const LabelCounts& p, const LabelCounts& q);

}  // namespace ecopipe
