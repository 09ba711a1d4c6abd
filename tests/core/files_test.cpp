#include "core/files.h"

#include <gtest/gtest.h>

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

TEST(Sha256, KnownAnswer) {
    EXPECT_EQ(sha256_hex("abc"),
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace ecopipe
