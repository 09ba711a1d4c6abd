#include "core/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace ecopipe {
namespace {

TEST(KeyedSeed, DependsOnEveryPartOfTheKey) {
    const auto base = keyed_seed(7, {1, 2, 3});
    EXPECT_EQ(base, keyed_seed(7, {1, 2, 3}));
    EXPECT_NE(base, keyed_seed(8, {1, 2, 3}));
    EXPECT_NE(base, keyed_seed(7, {1, 3, 2}));
    EXPECT_NE(base, keyed_seed(7, {1, 2}));
    EXPECT_NE(keyed_seed(7, "a.weight"), keyed_seed(7, "a.bias"));
}

TEST(Rng, BytesMustNotChangeByAccident) {
    Rng rng(0);
    EXPECT_EQ(rng.next(), 11091344671253066420ULL);
}

TEST(Rng, UniformStaysInsideAndAveragesHalf) {
    Rng rng(3);
    double sum = 0;
    for (int i = 0; i < 100000; ++i) {
        const double u = rng.uniform();
        ASSERT_GE(u, 0.0);
        ASSERT_LT(u, 1.0);
        sum += u;
    }
    EXPECT_NEAR(sum / 100000, 0.5, 0.005);
}

TEST(Rng, ShuffleIsAPermutation) {
    Rng rng(5);
    std::vector<int> values(100);
    std::iota(values.begin(), values.end(), 0);
    const auto before = values;
    rng.shuffle(values);
    EXPECT_NE(values, before);
    std::sort(values.begin(), values.end());
    EXPECT_EQ(values, before);
}

}  // namespace
}  // namespace ecopipe
