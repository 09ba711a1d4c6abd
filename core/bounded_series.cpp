#include "core/bounded_series.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"

namespace ecopipe {

BoundedSeries::BoundedSeries(std::size_t buckets_max) : buckets_max_(buckets_max) {
    ECOPIPE_CHECK(buckets_max >= 2 && buckets_max % 2 == 0);
}

void BoundedSeries::add(double x, double y) {
    if (!std::isfinite(x) || !std::isfinite(y)) return;
    if (!buckets_.empty() && buckets_.back().count < per_bucket_) {
        Bucket& last = buckets_.back();
        last.last_x = x;
        last.low = std::min(last.low, y);
        last.high = std::max(last.high, y);
        last.sum += y;
        ++last.count;
        return;
    }
    if (buckets_.size() == buckets_max_) {
        for (std::size_t i = 0; i < buckets_max_ / 2; ++i) {
            const Bucket& left = buckets_[2 * i];
            const Bucket& right = buckets_[2 * i + 1];
            buckets_[i] = {left.first_x,
                           right.last_x,
                           std::min(left.low, right.low),
                           std::max(left.high, right.high),
                           left.sum + right.sum,
                           left.count + right.count};
        }
        buckets_.resize(buckets_max_ / 2);
        per_bucket_ *= 2;
    }
    buckets_.push_back({x, x, y, y, y, 1});
}

}  // namespace ecopipe
