#include "fl_server/state/transfers.h"

#include <gtest/gtest.h>

#include "core/random.h"

namespace ecopipe::test {
namespace {

constexpr std::size_t kMiB = 1U << 20;

TEST(Transfers, UploadsBeginInTurnAndWhoHasBegunComesFirst) {
    Transfers pool(4 * kMiB);
    const Instant now{};
    for (const char* cluster : {"a", "b", "c"})
        pool.start_upload(now, {cluster, 1, 0}, 0, 3 * kMiB);
    // The first one's window is all that the pool has for updates.
    std::size_t until = 0;
    while (const auto grant = pool.next_grant()) {
        EXPECT_EQ(grant->key.cluster, "a");
        until = grant->until;
    }
    EXPECT_EQ(until, 2 * kMiB);
    // Announced again, b keeps its place before c.
    pool.start_upload(now, {"b", 1, 0}, 0, 3 * kMiB);
    pool.took(now, {"a", 1, 0}, kMiB);
    EXPECT_EQ(pool.next_grant()->key.cluster, "a");
    EXPECT_EQ(pool.next_grant()->until, 3 * kMiB);
    pool.took(now, {"a", 1, 0}, kMiB);
    EXPECT_EQ(pool.next_grant()->key.cluster, "b");
    EXPECT_EQ(pool.next_grant()->key.cluster, "b");
    EXPECT_FALSE(pool.next_grant());
    pool.forget("b");
    EXPECT_EQ(pool.next_grant()->key.cluster, "c");
    pool.forget("a");
    pool.forget("c");
    EXPECT_EQ(pool.used(), 0U);
}

TEST(Transfers, AStalledUploadLosesItsCredit) {
    Transfers pool(2 * kMiB);
    Instant now{};
    pool.start_upload(now, {"dead", 1, 0}, 0, kMiB);
    pool.start_upload(now, {"alive", 2, 0}, 0, kMiB);
    while (const auto grant = pool.next_grant()) EXPECT_EQ(grant->key.cluster, "dead");
    now += std::chrono::seconds(11);
    EXPECT_EQ(pool.take_stalled(now, std::chrono::seconds(10))->cluster, "dead");
    EXPECT_EQ(pool.next_grant()->key.cluster, "alive");
    EXPECT_FALSE(pool.take_stalled(now, std::chrono::seconds(20)));
}

TEST(Transfers, TheCreditIsTheMostThatIsUnderWay) {
    Transfers pool(2 * kMiB);
    const Instant now{};
    EXPECT_EQ(pool.bytes_max(), 2 * kMiB);
    for (const char* cluster : {"a", "b"}) pool.ask(now, {cluster, 0, 0, kMiB}, 0);
    pool.ask(now, {"c", 0, 0, 1}, 0);
    EXPECT_TRUE(pool.next_part());
    EXPECT_TRUE(pool.next_part());
    EXPECT_EQ(pool.used(), 2 * kMiB);
    EXPECT_FALSE(pool.next_part()) << "one byte more";
    pool.forget("a");
    EXPECT_EQ(pool.next_part()->cluster, "c");
}

TEST(Transfers, DownloadsWaitForRoomAndGiveBackWhatArrived) {
    Transfers pool(2 * kMiB);
    const Instant now{};
    pool.ask(now, {"a", 0, 0, kMiB}, 0);
    pool.ask(now, {"b", 0, 0, kMiB}, 0);
    pool.ask(now, {"b", 0, 0, kMiB}, 0);  // asked again: not sent twice
    pool.ask(now, {"b", 0, kMiB, kMiB}, 0);
    EXPECT_EQ(pool.next_part()->cluster, "a");
    EXPECT_EQ(pool.next_part()->cluster, "b");
    EXPECT_FALSE(pool.next_part());
    pool.received(now, "a", kMiB);
    EXPECT_EQ(pool.next_part()->offset, kMiB);
    pool.received(now, "b", 2 * kMiB);
    EXPECT_EQ(pool.used(), 0U);
}

TEST(Transfers, WhoHasBegunToReceiveComesFirst) {
    Transfers pool(2 * kMiB);
    const Instant now{};
    for (const char* cluster : {"a", "b", "c"})
        for (std::size_t part = 0; part < 3; ++part)
            pool.ask(now, {cluster, 0, part * kMiB, kMiB}, 0);
    EXPECT_EQ(pool.next_part()->cluster, "a");
    EXPECT_EQ(pool.next_part()->cluster, "a");
    pool.received(now, "a", 2 * kMiB);
    EXPECT_EQ(pool.next_part()->cluster, "a");
    EXPECT_EQ(pool.next_part()->cluster, "b");
    pool.received(now, "a", 3 * kMiB);
    EXPECT_EQ(pool.next_part()->cluster, "b");
}

TEST(Transfers, WhoAsksAndReceivesNothingHoldsUpNobody) {
    Transfers pool(4 * kMiB);
    Instant now{};
    for (std::size_t part = 0; part < 20; ++part)  // farther ahead than it may
        pool.ask(now, {"deaf", 0, part * kMiB, kMiB}, 0);
    while (pool.next_part()) {
    }
    pool.ask(now, {"alive", 0, 0, kMiB}, 0);
    EXPECT_FALSE(pool.next_part());
    now += std::chrono::seconds(31);
    pool.forget_stalled(now, std::chrono::seconds(30));
    EXPECT_EQ(pool.next_part()->cluster, "alive");
    EXPECT_EQ(pool.used(), kMiB);
    pool.ask(now, {"deaf", 0, 0, kMiB}, 0);  // it may begin anew
    EXPECT_EQ(pool.next_part()->cluster, "deaf");
    pool.forget("deaf");
    pool.forget("alive");
    EXPECT_EQ(pool.used(), 0U);
}

// Whatever clusters do, the pool is never over its limit and never leaks.
TEST(Transfers, RandomUseKeepsTheAccounts) {
    Rng rng(3);
    Transfers pool(8 * kMiB);
    Instant now{};
    for (int i = 0; i < 20000; ++i) {
        const std::string cluster(1, static_cast<char>('a' + rng.below(20)));
        switch (rng.below(8)) {
            case 0:
                pool.start_upload(now, {cluster, 1, 0}, 0, 5 * kMiB);
                break;
            case 1:
                pool.took(now, {cluster, 1, 0}, rng.below(kMiB));
                break;
            case 2:
                pool.end_uploads_of(cluster, 1);
                break;
            case 3:
                pool.ask(now, {cluster, rng.below(3), rng.below(4) * kMiB, kMiB},
                         rng.below(4) * kMiB);
                break;
            case 4:
                static_cast<void>(pool.next_part());
                break;
            case 5:
                static_cast<void>(pool.next_grant());
                break;
            case 6:
                now += std::chrono::milliseconds(rng.below(100));
                pool.forget_stalled(now, std::chrono::seconds(1));
                break;
            default:
                if (rng.below(5) == 0) pool.forget(cluster);
        }
        ASSERT_LE(pool.used(), pool.bytes_max() + 4 * kMiB);  // a part that skips ahead counts all
    }
    for (char c = 'a'; c < 'a' + 20; ++c) pool.forget(std::string(1, c));
    EXPECT_EQ(pool.used(), 0U);
}

}  // namespace
}  // namespace ecopipe::test
