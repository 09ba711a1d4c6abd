#include "orchestrator/session/move_policy.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

// Layers that do not fit where they are move at once, whatever was looked at before.
TEST(MovePolicy, WhoIsShortOfMemoryIsLookedAtAtOnce) {
    MovePolicy policy;
    policy.because("a came");
    static_cast<void>(policy.take(5));
    policy.because("b came");
    EXPECT_FALSE(policy.due(6));
    policy.short_of_memory("c", 12.5);
    EXPECT_TRUE(policy.due(6));
    EXPECT_EQ(policy.conditions().tensor_mib.at("c"), 12.5);
    const MovePolicy::Look look = policy.take(6);
    EXPECT_TRUE(look.memory);
    EXPECT_FALSE(look.must);
    EXPECT_EQ(look.reason, "b came; c has memory for 12.5 MiB of tensors");
    EXPECT_FALSE(policy.due(7));
}

TEST(MovePolicy, NearlyTheSameShortageIsAnsweredAlready) {
    MovePolicy policy;
    policy.short_of_memory("c", 10);
    static_cast<void>(policy.take(1));
    policy.short_of_memory("c", 9.5);
    EXPECT_FALSE(policy.due(100));
    policy.short_of_memory("c", 8);
    EXPECT_TRUE(policy.take(2).memory);
}

// Enough memory is an occasion, for whoever was short; nothing has to move for it.
TEST(MovePolicy, EnoughMemoryAgainWaitsForItsTurn) {
    MovePolicy policy;
    policy.short_of_memory("c", std::nullopt);
    EXPECT_FALSE(policy.due(100));
    policy.short_of_memory("c", 10);
    static_cast<void>(policy.take(1));
    policy.short_of_memory("c", std::nullopt);
    EXPECT_TRUE(policy.conditions().tensor_mib.empty());
    EXPECT_FALSE(policy.due(2));
    EXPECT_TRUE(policy.due(100));
    EXPECT_FALSE(policy.take(100).memory);
}

TEST(MovePolicy, AnotherProcessIsAsItWasProfiled) {
    MovePolicy policy;
    policy.short_of_memory("c", 10);
    policy.another_process("c");
    EXPECT_TRUE(policy.conditions().tensor_mib.empty());
}

}  // namespace
}  // namespace ecopipe
