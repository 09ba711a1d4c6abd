#include "fl_server/numbers/robust_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ecopipe {
namespace {

std::size_t trimmed_at_each_end(double trim, std::size_t n) {
    return static_cast<std::size_t>(std::floor(trim * static_cast<double>(n)));
}

}  // namespace

std::string combine_refusal(const Combine& combine, std::size_t n) {
    const auto too_few = [&](const char* rule, std::size_t needed) {
        return fmt::format("{} needs {} updates, found {}", rule, needed, n);
    };
    switch (combine.rule) {
        case Combine::Rule::kMean:
            if (n < 1) return too_few("the mean", 1);
            return std::isfinite(combine.divisor) && combine.divisor >= 0
                       ? ""
                       : "the mean's divisor is not a positive number";
        case Combine::Rule::kCoordinateMedian:
            return n >= 3 ? "" : too_few("the coordinate median", 3);
        case Combine::Rule::kTrimmedMean: {
            if (!(combine.trim > 0 && combine.trim < 0.5))
                return fmt::format("the trimmed mean cuts between 0 and 0.5, found {}",
                                   combine.trim);
            if (trimmed_at_each_end(combine.trim, n) >= 1) return {};  // 2 * trim < 1 leaves some
            return too_few("the trimmed mean",
                           static_cast<std::size_t>(std::ceil(1 / combine.trim)));
        }
        case Combine::Rule::kMultiKrum: {
            const std::size_t f = combine.byzantine;
            if (n < 2 * f + 3) return too_few("multi-Krum", 2 * f + 3);
            if (combine.keep < 1 || combine.keep > n - f - 2)
                return fmt::format("multi-Krum keeps 1 to {} of {} updates, found {}", n - f - 2, n,
                                   combine.keep);
            return {};
        }
    }
    return "an unknown rule";
}

void coordinate_median(std::span<const double* const> rows, std::size_t length, double* out) {
    const std::size_t n = rows.size();
    const auto middle = static_cast<std::ptrdiff_t>(n / 2);
    std::vector<double> column(n);
    for (std::size_t i = 0; i < length; ++i) {
        for (std::size_t r = 0; r < n; ++r) column[r] = rows[r][i];
        std::nth_element(column.begin(), column.begin() + middle, column.end());
        const double high = column[n / 2];
        out[i] = n % 2 == 1
                     ? high
                     : (*std::max_element(column.begin(), column.begin() + middle) + high) / 2;
    }
}

void trimmed_mean(std::span<const double* const> rows, std::size_t length, double trim,
                  double* out) {
    const std::size_t n = rows.size();
    const std::size_t cut = trimmed_at_each_end(trim, n);
    std::vector<double> column(n);
    for (std::size_t i = 0; i < length; ++i) {
        for (std::size_t r = 0; r < n; ++r) column[r] = rows[r][i];
        std::sort(column.begin(), column.end());
        double sum = 0;
        for (std::size_t r = cut; r < n - cut; ++r) sum += column[r];
        out[i] = sum / static_cast<double>(n - 2 * cut);
    }
}

std::vector<std::size_t> multi_krum(std::span<const double> squared_distances, std::size_t n,
                                    std::uint32_t byzantine, std::uint32_t keep) {
    const std::size_t nearest = n - byzantine - 2;
    std::vector<double> scores(n, 0.0);
    std::vector<double> others;
    for (std::size_t a = 0; a < n; ++a) {
        others.clear();
        for (std::size_t b = 0; b < n; ++b)
            if (b != a) others.push_back(squared_distances[a * n + b]);
        std::sort(others.begin(), others.end());
        for (std::size_t k = 0; k < nearest; ++k) scores[a] += others[k];
    }
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return scores[a] < scores[b]; });
    order.resize(keep);
    std::sort(order.begin(), order.end());
    return order;
}

}  // namespace ecopipe
