#include "fl_server/strategies/label_distribution.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ecopipe {

void add_counts(LabelCounts& sum, const std::vector<std::uint64_t>& counts, double sign) {
    if (sum.size() < counts.size()) sum.resize(counts.size(), 0);
    for (std::size_t i = 0; i < counts.size(); ++i) sum[i] += sign * static_cast<double>(counts[i]);
}

double js_divergence(const LabelCounts& p, const LabelCounts& q) {
    const double p_sum = std::accumulate(p.begin(), p.end(), 0.0);
    const double q_sum = std::accumulate(q.begin(), q.end(), 0.0);
    if (p_sum <= 0 || q_sum <= 0) return 0;
    double divergence = 0;
    for (std::size_t i = 0; i < std::max(p.size(), q.size()); ++i) {
        const double a = i < p.size() ? p[i] / p_sum : 0;
        const double b = i < q.size() ? q[i] / q_sum : 0;
        const double middle = (a + b) / 2;
        if (a > 0) divergence += 0.5 * a * std::log(a / middle);
        if (b > 0) divergence += 0.5 * b * std::log(b / middle);
    }
    return std::max(0.0, divergence);
}

}  // namespace ecopipe
