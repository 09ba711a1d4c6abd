#include "core/files.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

namespace ecopipe {
namespace {

class Files : public testing::Test {
  protected:
    void SetUp() override {
        directory_ = std::filesystem::temp_directory_path() /
                     ("ecopipe-files-" + std::to_string(::getpid()));
        std::filesystem::create_directories(directory_);
    }
    void TearDown() override { std::filesystem::remove_all(directory_); }
    [[nodiscard]] std::string path(const char* name) const { return directory_ / name; }
    std::filesystem::path directory_;
};

TEST_F(Files, AtomicWriteReplacesWholeAndLeavesNoTemporary) {
    ASSERT_TRUE(write_file_atomically(path("a"), "first"));
    ASSERT_TRUE(write_file_atomically(path("a"), "second"));
    EXPECT_EQ(*read_file(path("a"), 100), "second");
    EXPECT_FALSE(std::filesystem::exists(path("a.tmp")));
}

TEST_F(Files, RefusalsNameTheFile) {
    EXPECT_EQ(read_file(path("none"), 10).error().message,
              path("none") + ": cannot open: No such file or directory");
    ASSERT_TRUE(write_file_atomically(path("big"), "0123456789x"));
    EXPECT_EQ(read_file(path("big"), 10).error().message,
              path("big") + ": expected at most 10 bytes, found 11");
    EXPECT_EQ(read_file(directory_, 10).error().message,
              directory_.string() + ": is not a regular file");
    EXPECT_FALSE(write_file_atomically(path("no/such/dir"), "x"));
}

TEST_F(Files, AppenderKeepsEarlierLines) {
    for (int i = 0; i < 2; ++i) ASSERT_TRUE(LineAppender::open(path("log"))->append("line"));
    EXPECT_EQ(*read_file(path("log"), 100), "line\nline\n");
}

// As on a disk that is full for a while: a line may be cut in its middle.
TEST_F(Files, WhatCannotBeAppendedNowComesLater) {
    auto log = LineAppender::open(path("log"));
    ASSERT_TRUE(log);
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    const rlimit small{12, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
    EXPECT_TRUE(log->append("first"));
    EXPECT_FALSE(log->append("second line"));
    EXPECT_FALSE(log->append("third"));
    EXPECT_EQ(log->waiting_bytes(), 12U);
    EXPECT_FALSE(log->flush());
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_EQ(*read_file(path("log"), 100), "first\nsecond");
    EXPECT_TRUE(log->append("fourth"));
    EXPECT_EQ(log->waiting_bytes(), 0U);
    EXPECT_EQ(*read_file(path("log"), 100), "first\nsecond line\nthird\nfourth\n");
}

TEST_F(Files, WhatIsPrivateIsItsOwnersAlone) {
    const auto mode = [&](const char* name) {
        struct stat facts{};
        EXPECT_EQ(::stat(path(name).c_str(), &facts), 0);
        return facts.st_mode & 0777U;
    };
    ASSERT_TRUE(make_directories(path("open")));
    ASSERT_TRUE(make_private_directory(path("open")));  // one that was there before
    ASSERT_TRUE(make_private_file(path("open/file")));
    EXPECT_EQ(mode("open"), 0700U);
    EXPECT_EQ(mode("open/file"), 0600U);
    ASSERT_TRUE(write_file_atomically(path("other"), "bytes"));
    ASSERT_TRUE(make_private_file(path("other")));
    EXPECT_EQ(mode("other"), 0600U);
    EXPECT_EQ(*read_file(path("other"), 100), "bytes");
}

TEST(Sha256, KnownAnswer) {
    EXPECT_EQ(sha256_hex("abc"),
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace ecopipe
