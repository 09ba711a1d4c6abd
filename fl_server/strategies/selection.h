#pragma once
// Whom a round asks. Keyed by seed, so that equal states choose equally.

#include <string>
#include <vector>

#include "fl_server/strategies/label_distribution.h"
#include "fl_server/strategies/roster.h"

namespace ecopipe {

// `count` of the candidates without replacement, all alike likely.
[[nodiscard]] std::vector<std::string> select_at_random(std::vector<std::string> candidates,
                                                        std::size_t count, std::uint64_t seed);

// A random pool of `pool` * count candidates, and of it, one after the other, whoever brings the
// labels of those chosen so far nearest to `reference` in Jensen-Shannon divergence (the greedy
// packing of Astraea's mediators, Duan et al. 2019); ties to the earlier in the random order. The
// pool keeps everybody in the game where some clients alone are balanced.
[[nodiscard]] std::vector<std::string> select_balanced(const std::vector<std::string>& candidates,
                                                       std::size_t count, const Roster& roster,
                                                       const LabelCounts& reference, double pool,
                                                       std::uint64_t seed);

}  // namespace ecopipe
