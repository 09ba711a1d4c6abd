#include "fl_server/transfers.h"

#include <gtest/gtest.h>

#include "core/random.h"

namespace ecopipe::test {
namespace {

constexpr std::size_t kMiB = 1U << 20;

TEST(Transfers, UploadsShareThePoolInTheOrderOfWaiting) {
    Transfers pool(2 * kMiB);
    const Instant now{};
    for (const char* cluster : {"a", "b", "c"})
        pool.start_upload(now, {cluster, 1, 0}, 0, 3 * kMiB);
    const auto first = pool.next_grant();
    const auto second = pool.next_grant();
    ASSERT_TRUE(first && second);
    EXPECT_EQ(first->key.cluster, "a");
    EXPECT_EQ(first->until, kMiB);
    EXPECT_EQ(second->key.cluster, "b");
    EXPECT_FALSE(pool.next_grant());
    pool.took(now, first->key, kMiB);
    EXPECT_EQ(pool.next_grant()->key.cluster, "c");
    pool.forget("b");
    EXPECT_EQ(pool.next_grant()->key.cluster, "a");
    pool.forget("a");
    pool.forget("c");
    EXPECT_EQ(pool.used(), 0U);
}

TEST(Transfers, AStalledUploadLosesItsCredit) {
    Transfers pool(kMiB);
    Instant now{};
    pool.start_upload(now, {"dead", 1, 0}, 0, kMiB);
    pool.start_upload(now, {"alive", 2, 0}, 0, kMiB);
    ASSERT_TRUE(pool.next_grant());
    EXPECT_FALSE(pool.next_grant());
    now += std::chrono::seconds(11);
    EXPECT_EQ(pool.take_stalled(now, std::chrono::seconds(10))->cluster, "dead");
    EXPECT_EQ(pool.next_grant()->key.cluster, "alive");
    EXPECT_FALSE(pool.take_stalled(now, std::chrono::seconds(20)));
}

TEST(Transfers, DownloadsWaitForRoomAndGiveBackWhatArrived) {
    Transfers pool(2 * kMiB);
    pool.ask({"a", 0, 0, kMiB}, 0);
    pool.ask({"b", 0, 0, kMiB}, 0);
    pool.ask({"b", 0, kMiB, kMiB}, 0);
    ASSERT_TRUE(pool.next_part());
    ASSERT_TRUE(pool.next_part());
    EXPECT_FALSE(pool.next_part());
    pool.received("a", kMiB);
    EXPECT_EQ(pool.next_part()->offset, kMiB);
    pool.received("b", 2 * kMiB);
    EXPECT_EQ(pool.used(), 0U);
}

// Whatever clusters do, the pool is never over its limit and never leaks.
TEST(Transfers, RandomUseKeepsTheAccounts) {
    Rng rng(3);
    Transfers pool(8 * kMiB);
    Instant now{};
    std::map<std::string, std::size_t> have;
    for (int i = 0; i < 20000; ++i) {
        const std::string cluster(1, static_cast<char>('a' + rng.below(20)));
        switch (rng.below(7)) {
            case 0:
                pool.start_upload(now, {cluster, 1, 0}, 0, 5 * kMiB);
                have[cluster] = 0;
                break;
            case 1:
                pool.took(now, {cluster, 1, 0}, rng.below(kMiB));
                break;
            case 2:
                pool.end_uploads_of(cluster, 1);
                break;
            case 3:
                pool.ask({cluster, rng.below(3), rng.below(4) * kMiB, kMiB}, rng.below(4) * kMiB);
                break;
            case 4:
                static_cast<void>(pool.next_part());
                break;
            case 5:
                static_cast<void>(pool.next_grant());
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
