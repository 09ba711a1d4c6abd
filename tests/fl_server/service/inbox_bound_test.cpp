#include "fl_server/service/inbox_bound.h"

#include <gtest/gtest.h>

#include <vector>

namespace ecopipe {
namespace {

constexpr std::size_t kCredit = 10000;
constexpr std::size_t kOwn = InboxBound::kMessageBytes;

TEST(InboxBound, ASenderMayHaveItsCreditWaitingAndNotAByteMore) {
    InboxBound bound(kCredit);
    auto whole = bound.take("a", kCredit - kOwn);
    EXPECT_TRUE(whole);
    EXPECT_FALSE(bound.take("a", 0));
    EXPECT_TRUE(bound.take("b", 0)) << "the others are not kept out";
    whole.reset();
    EXPECT_FALSE(bound.take("a", kCredit - kOwn + 1));
    EXPECT_TRUE(bound.take("a", kCredit - kOwn));
}

TEST(InboxBound, AllTogetherMayHaveTwiceAsMuch) {
    InboxBound bound(kCredit);
    const auto one = bound.take("a", kCredit - kOwn);
    const auto two = bound.take("b", kCredit - kOwn);
    ASSERT_TRUE(one && two);
    EXPECT_FALSE(bound.take("c", 0));
}

TEST(InboxBound, WhoseMessagesAreHandledIsForgotten) {
    InboxBound bound(kCredit);
    for (int i = 0; i < 10000; ++i) ASSERT_TRUE(bound.take("sender " + std::to_string(i), 1));
    EXPECT_LE(bound.senders(), 64U);
}

TEST(InboxBound, WhatIsReleasedMayOutliveIt) {
    auto bound = std::make_unique<InboxBound>(kCredit);
    auto kept = bound->take("a", 1);
    bound.reset();
    kept.reset();
}

}  // namespace
}  // namespace ecopipe
