#include "fl_server/numbers/robust_rules.h"

#include <gtest/gtest.h>

#include "tests/fl_server/service/toy_federation.h"

namespace ecopipe::test {
namespace {

Combine rule(Combine::Rule kind, double trim = 0, std::uint32_t f = 0, std::uint32_t keep = 0) {
    return {kind, 0, trim, f, keep};
}

TEST(RobustRules, EachRefusesTooFew) {
    EXPECT_NE(combine_refusal({}, 0), "");
    EXPECT_EQ(combine_refusal({}, 1), "");
    const Combine median = rule(Combine::Rule::kCoordinateMedian);
    EXPECT_EQ(combine_refusal(median, 2), "the coordinate median needs 3 updates, found 2");
    EXPECT_EQ(combine_refusal(median, 3), "");
    const Combine trimmed = rule(Combine::Rule::kTrimmedMean, 0.2);
    EXPECT_EQ(combine_refusal(trimmed, 4), "the trimmed mean needs 5 updates, found 4");
    EXPECT_EQ(combine_refusal(trimmed, 5), "");
    EXPECT_NE(combine_refusal(rule(Combine::Rule::kTrimmedMean, 0.5), 50), "");
    const Combine krum = rule(Combine::Rule::kMultiKrum, 0, 1, 2);
    EXPECT_EQ(combine_refusal(krum, 4), "multi-Krum needs 5 updates, found 4");
    EXPECT_EQ(combine_refusal(krum, 5), "");
    EXPECT_NE(combine_refusal(rule(Combine::Rule::kMultiKrum, 0, 1, 3), 5), "");
    EXPECT_NE(combine_refusal(rule(Combine::Rule::kMultiKrum, 0, 1, 0), 5), "");
}

// Deltas of five clients in two coordinates; the last one lies.
class OverAggregator : public ::testing::Test {
  protected:
    std::vector<float> run(const Combine& combine, bool reversed = false, int clients = 5) {
        const ModelLayout layout = vector_layout(2);
        const auto base = flat_floats({10, 20});
        const std::vector<std::vector<float>> deltas{{1, 4}, {2, 3}, {3, 2}, {4, 1}, {1000, -1000}};
        Aggregator aggregator(layout, {0, base, {}, nullptr}, {}, {});
        for (int k = 0; k < clients; ++k) {
            const int c = reversed ? clients - 1 - k : k;
            const auto& d = deltas[static_cast<std::size_t>(c)];
            EXPECT_TRUE(
                aggregator.fold({std::string(1, static_cast<char>('a' + c)), 1, 0, 7},
                                checked(layout, flat_floats({10 + d[0], 20 + d[1]}), base)));
        }
        Recipe recipe = mean_recipe();
        recipe.close[0].combine = combine;
        const auto made = aggregator.commit(recipe);
        if (!made) return {};
        return floats_of(*aggregator.state().global);
    }
};

TEST_F(OverAggregator, MedianTrimmedMeanAndMultiKrumByHand) {
    for (const bool reversed : {false, true}) {
        EXPECT_EQ(run(rule(Combine::Rule::kCoordinateMedian), reversed),
                  (std::vector<float>{13, 22}));
        EXPECT_EQ(run(rule(Combine::Rule::kCoordinateMedian), reversed, 4),
                  (std::vector<float>{12.5F, 22.5F}));
        EXPECT_EQ(run(rule(Combine::Rule::kTrimmedMean, 0.2), reversed),
                  (std::vector<float>{13, 22}));
        // Scores over the two nearest: a 2+8, b 2+2, c 2+2, d 2+8, e far: b and c are kept.
        EXPECT_EQ(run(rule(Combine::Rule::kMultiKrum, 0, 1, 2), reversed),
                  (std::vector<float>{12.5F, 22.5F}));
    }
    EXPECT_TRUE(run(rule(Combine::Rule::kMultiKrum, 0, 1, 2), false, 4).empty());
}

}  // namespace
}  // namespace ecopipe::test
