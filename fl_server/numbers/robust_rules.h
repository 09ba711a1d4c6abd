#pragma once
// Rules that bear some liars among the clients of one slot. Pure; all are unweighted, and none
// depends on the order of its inputs' arrival (the caller sorts them by name).
//
// Coordinate median and trimmed mean: Yin et al., "Byzantine-Robust Distributed Learning" (ICML
// 2018). Multi-Krum: Blanchard et al., "Machine Learning with Adversaries" (NeurIPS 2017): each
// update's score is the sum of squared distances to its n - f - 2 nearest others; the mean of the
// m best. With strongly non-IID clients all of them also cut honest updates away.

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "fl_server/numbers/recipe.h"

namespace ecopipe {

// The reason why this many updates cannot be combined so, "" when they can: the mean needs 1 (and a
// divisor that is not negative), the median 3, the trimmed mean one left and at least one cut at
// each end, multi-Krum n >= 2f + 3 and 1 <= m <= n - f - 2. A strategy asks before it commits.
[[nodiscard]] std::string combine_refusal(const Combine& combine, std::size_t updates);

// Column i of the rows; n rows of equal length. `out` has that length.
void coordinate_median(std::span<const double* const> rows, std::size_t length, double* out);
void trimmed_mean(std::span<const double* const> rows, std::size_t length, double trim,
                  double* out);

// `squared_distances[a * n + b]`, symmetric. The indices of the `keep` best, ascending; ties go to
// the lower index.
[[nodiscard]] std::vector<std::size_t> multi_krum(std::span<const double> squared_distances,
                                                  std::size_t n, std::uint32_t byzantine,
                                                  std::uint32_t keep);

}  // namespace ecopipe
