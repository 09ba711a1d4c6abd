#include "fl_server/service/client_tests.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

constexpr ClientTest kNone{};
constexpr double kAnyWeight = 0;

TEST(ClientTests, AMajorityOfOneVersionCountsAlone) {
    const auto verdict = client_verdict({{7, 30, 0.5}, {7, 10, 0.9}, {6, 100, 1}}, kAnyWeight);
    ASSERT_TRUE(verdict);
    EXPECT_EQ(verdict->version, 7U);
    EXPECT_DOUBLE_EQ(verdict->accuracy, (30 * 0.5 + 10 * 0.9) / 40);
}

TEST(ClientTests, WithoutOneEveryClustersNewestWordCounts) {
    const auto verdict = client_verdict({{7, 10, 1}, {6, 10, 0.5}, {4, 20, 0.25}}, kAnyWeight);
    ASSERT_TRUE(verdict);
    EXPECT_EQ(verdict->version, 7U);
    EXPECT_DOUBLE_EQ(verdict->accuracy, (10 + 5 + 5) / 40.0);
}

TEST(ClientTests, LessThanAMajoritySaysNothing) {
    EXPECT_FALSE(client_verdict({}, kAnyWeight));
    EXPECT_FALSE(client_verdict({kNone}, kAnyWeight));
    EXPECT_FALSE(client_verdict({{7, 10, 1}, kNone}, kAnyWeight)) << "half";
    EXPECT_TRUE(client_verdict({{7, 10, 1}, {6, 10, 1}, kNone}, kAnyWeight));
    EXPECT_TRUE(client_verdict({{7, 10, 1}}, kAnyWeight)) << "alone";
}

TEST(ClientTests, NobodysTestDataOutweighAllOthers) {
    const std::vector<ClientTest> tests{
        {7, 10, 0.5}, {7, 10, 0.5}, {7, 10, 0.5}, {7, 10, 0.5}, {7, 1'000'000'000, 1}};
    EXPECT_DOUBLE_EQ(client_verdict(tests, 1)->accuracy, (4 * 0.5 + 1) / 5);
    EXPECT_GT(client_verdict(tests, kAnyWeight)->accuracy, 0.99);
}

}  // namespace
}  // namespace ecopipe
