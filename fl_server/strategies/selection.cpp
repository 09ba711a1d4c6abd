#include "fl_server/strategies/selection.h"

#include <algorithm>
#include <cmath>

#include "core/random.h"

namespace ecopipe {

std::vector<std::string> select_at_random(std::vector<std::string> candidates, std::size_t count,
                                          std::uint64_t seed) {
    Rng rng(seed);
    rng.shuffle(candidates);
    candidates.resize(std::min(count, candidates.size()));
    return candidates;
}

std::vector<std::string> select_balanced(const std::vector<std::string>& candidates,
                                         std::size_t count, const Roster& roster,
                                         const LabelCounts& reference, double pool,
                                         std::uint64_t seed) {
    const auto wanted = static_cast<std::size_t>(std::ceil(static_cast<double>(count) * pool));
    std::vector<std::string> left = select_at_random(candidates, wanted, seed);
    std::vector<std::string> chosen;
    LabelCounts sum;
    while (chosen.size() < count && !left.empty()) {
        std::size_t best = 0;
        double best_divergence = 2;
        for (std::size_t i = 0; i < left.size(); ++i) {
            LabelCounts with = sum;
            add_counts(with, roster.find(left[i])->facts.label_counts);
            const double divergence = js_divergence(with, reference);
            if (divergence < best_divergence - 1e-12) {
                best = i;
                best_divergence = divergence;
            }
        }
        add_counts(sum, roster.find(left[best])->facts.label_counts);
        chosen.push_back(left[best]);
        left.erase(left.begin() + static_cast<std::ptrdiff_t>(best));
    }
    return chosen;
}

}  // namespace ecopipe
