#pragma once
// How much one cluster may count for beside the others. Pure.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ecopipe {

// Of fewer clusters a median says little: of two, one with 320 samples beside one with 1 would
// count for 10, and nobody has lied.
inline constexpr std::size_t kCapFromClusters = 5;

// The most samples that one update counts for: `weight_max` times the median of `told`, the samples
// that each cluster says it has. Of an even number it is the lower of the two in the middle, so
// that half of the clusters cannot raise it. Who has told nothing (0) is left out; with fewer than
// kCapFromClusters others, or with `weight_max` 0, there is no limit. At least 1.
[[nodiscard]] std::uint64_t samples_cap(std::vector<std::uint64_t> told, double weight_max);

}  // namespace ecopipe
