#include "core/bounded_series.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace ecopipe {
namespace {

TEST(BoundedSeries, KeepsEveryPointWhileThereIsRoom) {
    BoundedSeries series(8);
    for (int i = 0; i < 8; ++i) series.add(i, 10 * i);
    ASSERT_EQ(series.buckets().size(), 8U);
    EXPECT_EQ(series.buckets()[3].mean(), 30);
    EXPECT_EQ(series.points_per_bucket(), 1U);
}

TEST(BoundedSeries, AHundredThousandPointsLoseNeitherPeakNorMeanNorEnds) {
    constexpr int kPoints = 100000;
    BoundedSeries series(1000);
    double sum = 0;
    for (int i = 1; i <= kPoints; ++i) {
        const double y = i == 54321 ? 1e6 : i == 77 ? -1e6 : std::sin(i);
        sum += y;
        series.add(i, y);
        ASSERT_LE(series.buckets().size(), 1000U);
    }
    EXPECT_GE(series.buckets().size(), 500U);
    double low = 0;
    double high = 0;
    double total = 0;
    std::uint64_t count = 0;
    double last = 0;
    for (const auto& bucket : series.buckets()) {
        EXPECT_GT(bucket.first_x, last);
        EXPECT_GE(bucket.last_x, bucket.first_x);
        last = bucket.last_x;
        low = std::min(low, bucket.low);
        high = std::max(high, bucket.high);
        total += bucket.sum;
        count += bucket.count;
    }
    EXPECT_EQ(series.buckets().front().first_x, 1);
    EXPECT_EQ(last, kPoints);
    EXPECT_EQ(low, -1e6);
    EXPECT_EQ(high, 1e6);
    EXPECT_NEAR(total, sum, 1e-6);
    EXPECT_EQ(count, static_cast<std::uint64_t>(kPoints));
}

TEST(BoundedSeries, LeavesOutWhatIsNotFinite) {
    BoundedSeries series(2);
    series.add(1, std::numeric_limits<double>::quiet_NaN());
    series.add(std::numeric_limits<double>::infinity(), 1);
    EXPECT_TRUE(series.buckets().empty());
}

}  // namespace
}  // namespace ecopipe
