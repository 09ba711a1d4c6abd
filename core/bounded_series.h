#pragma once
// A curve of unbounded length in bounded memory: equal buckets of points, each with its mean and
// its extremes, so that a peak of one step stays visible among a hundred thousand.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ecopipe {

class BoundedSeries {
  public:
    struct Bucket {
        double first_x = 0;
        double last_x = 0;
        double low = 0;
        double high = 0;
        double sum = 0;
        std::uint64_t count = 0;
        [[nodiscard]] double mean() const { return sum / static_cast<double>(count); }
    };

    // `buckets_max` is even and at least 2. When all are full, pairs are merged and a bucket takes
    // twice as many points from then on: between half and all of them are in use, and the same
    // points give the same buckets.
    explicit BoundedSeries(std::size_t buckets_max = 1000);

    // `x` comes in rising order. What is not finite is left out.
    void add(double x, double y);
    [[nodiscard]] const std::vector<Bucket>& buckets() const { return buckets_; }
    [[nodiscard]] std::uint64_t points_per_bucket() const { return per_bucket_; }

  private:
    std::size_t buckets_max_;
    std::uint64_t per_bucket_ = 1;
    std::vector<Bucket> buckets_;
};

}  // namespace ecopipe
