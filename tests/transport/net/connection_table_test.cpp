// Each limit on connections, at it and one past it.
#include "transport/net/connection_table.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

constexpr Instant kStart{std::chrono::seconds(100)};

// So many connections of one address that have spoken.
void fill(ConnectionTable& table, const std::string& address, std::size_t count, int first,
          Instant now) {
    for (std::size_t i = 0; i < count; ++i) {
        const int descriptor = first + static_cast<int>(i);
        ASSERT_FALSE(table.accepted(descriptor, address, now)) << i;
        table.spoke(descriptor, "");
    }
}

TEST(TokenBucket, GivesItsBurstAndThenItsRate) {
    TokenBucket bucket(3, 2);
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(bucket.take(kStart));
    EXPECT_FALSE(bucket.take(kStart));
    EXPECT_TRUE(bucket.take(kStart + std::chrono::milliseconds(500)));
    EXPECT_FALSE(bucket.take(kStart + std::chrono::milliseconds(500)));
}

TEST(ConnectionTable, OneAddressMayHaveSoManyConnections) {
    ConnectionTable table;
    fill(table, "a", kConnectionsPerAddress, 0, kStart);
    const auto one_more = table.accepted(9999, "a", kStart + std::chrono::seconds(10));
    ASSERT_TRUE(one_more);
    EXPECT_EQ(one_more->descriptor, 9999);
    EXPECT_FALSE(table.accepted(5000, "b", kStart));
    EXPECT_EQ(table.closed(9999), "a");
    table.closed(0);
    EXPECT_FALSE(table.accepted(0, "a", kStart + std::chrono::seconds(10)));
}

TEST(ConnectionTable, OneAddressMayComeSoOften) {
    ConnectionTable table;
    const auto burst = static_cast<int>(kHandshakeBurst);
    for (int i = 0; i < burst; ++i) {
        ASSERT_FALSE(table.accepted(7, "a", kStart)) << i;
        table.closed(7);
    }
    EXPECT_TRUE(table.accepted(7, "a", kStart));
    EXPECT_FALSE(table.accepted(8, "b", kStart));  // others are not delayed
    table.closed(7);
    EXPECT_FALSE(table.accepted(7, "a", kStart + std::chrono::seconds(1)));
}

TEST(ConnectionTable, AllAddressesTogetherMayHaveSoManyConnections) {
    ConnectionTable table;
    std::size_t made = 0;
    for (int address = 0; made < kConnectionsMax; ++address) {
        fill(table, std::to_string(address), kConnectionsPerAddress, static_cast<int>(made),
             kStart);
        made += kConnectionsPerAddress;
    }
    ASSERT_EQ(table.size(), kConnectionsMax);
    EXPECT_TRUE(table.accepted(50000, "another", kStart));
}

TEST(ConnectionTable, SilentStrangersPushOutOneAnother) {
    ConnectionTable table;
    ASSERT_FALSE(table.accepted(1, "home", kStart));
    for (std::size_t i = 1; i < kSilentConnectionsMax; ++i)
        ASSERT_FALSE(table.accepted(static_cast<int>(10 + i), "stranger",
                                    kStart + std::chrono::milliseconds(i)));
    const auto gone = table.accepted(99, "new", kStart + std::chrono::seconds(1));
    ASSERT_TRUE(gone);
    EXPECT_EQ(gone->address, "stranger");
    EXPECT_EQ(gone->descriptor, 11);  // its oldest
    table.closed(11);
    table.spoke(1, "home");  // one that speaks makes room
    EXPECT_FALSE(table.accepted(100, "new", kStart + std::chrono::seconds(1)));
}

TEST(ConnectionTable, AMessageMayTakeSoManyBytes) {
    ConnectionTable table;
    ASSERT_FALSE(table.accepted(1, "a", kStart));
    EXPECT_FALSE(table.unfinished(1, kUnfinishedBytesMax));
    EXPECT_TRUE(table.unfinished(1, kUnfinishedBytesMax + 1));
    table.spoke(1, "");
    EXPECT_FALSE(table.unfinished(1, kUnfinishedBytesMax + 1));
    EXPECT_FALSE(table.unfinished(1, 2 * kUnfinishedBytesMax + 1));
    EXPECT_TRUE(table.unfinished(1, 2 * kUnfinishedBytesMax + 2));
}

TEST(ConnectionTable, ARevokedUsersConnectionsAreFoundAndThoseThatSaidNothing) {
    ConnectionTable table;
    for (int i = 1; i <= 3; ++i) ASSERT_FALSE(table.accepted(i, "a", kStart));
    table.spoke(1, "pi");
    table.spoke(2, "phone");
    EXPECT_EQ(table.of("pi"), (std::vector<int>{1, 3}));
}

}  // namespace
}  // namespace ecopipe
