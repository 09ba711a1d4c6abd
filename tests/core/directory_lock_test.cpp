#include "core/directory_lock.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

namespace ecopipe {
namespace {

TEST(DirectoryLock, HasOneHolderAtATime) {
    const std::string directory = testing::TempDir() + "lock-" + std::to_string(::getpid());
    std::filesystem::create_directory(directory);
    {
        const auto held = DirectoryLock::take(directory, "--out");
        ASSERT_TRUE(held) << held.error().message;
        const auto second = DirectoryLock::take(directory, "--out");
        ASSERT_FALSE(second);
        EXPECT_EQ(second.error().code, ExitCode::kUsage);
        EXPECT_EQ(second.error().message,
                  "--out " + directory + ": another process is at work in it");
    }
    auto again = DirectoryLock::take(directory, "--out");
    EXPECT_TRUE(again);
    const DirectoryLock moved = std::move(*again);
    EXPECT_FALSE(DirectoryLock::take(directory, "--out"));
    EXPECT_TRUE(std::filesystem::is_empty(directory));
    std::filesystem::remove(directory);
    EXPECT_FALSE(DirectoryLock::take(directory + "/none", "--out"));
}

}  // namespace
}  // namespace ecopipe
