#include "orchestrator/train/checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <sstream>

#include "core/crc32c.h"

namespace ecopipe {
namespace {

class Checkpoints : public testing::Test {
  protected:
    void SetUp() override {
        std::string pattern = (std::filesystem::temp_directory_path() / "checkpoints-XXXXXX");
        ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        directory_ = pattern;
    }
    void TearDown() override { std::filesystem::remove_all(directory_); }

    static Checkpoint made(std::uint64_t step) {
        Checkpoint checkpoint;
        checkpoint.step = step;
        checkpoint.flags = {{"lr", 0.01}, {"model", "toy"}};
        for (const char* name : {"0.weight", "optimizer/momentum/0.weight"}) {
            HostTensor tensor = HostTensor::allocate(DType::kF32, {3, 2});
            for (std::size_t i = 0; i < 6; ++i)
                tensor.as<float>()[i] = static_cast<float>(step) + static_cast<float>(i);
            checkpoint.state.push_back({name, std::move(tensor)});
        }
        HostTensor scalar = HostTensor::allocate(DType::kI64, {});
        scalar.as<std::int64_t>()[0] = static_cast<std::int64_t>(step);
        checkpoint.state.push_back({"optimizer/step/0.weight", std::move(scalar)});
        return checkpoint;
    }
    static std::string bytes(const std::string& path) {
        std::ifstream in(path, std::ios::binary);
        std::ostringstream text;
        text << in.rdbuf();
        return text.str();
    }
    static void put(const std::string& path, const std::string& text) {
        std::ofstream(path, std::ios::binary) << text;
    }
    std::string directory_;
};

TEST_F(Checkpoints, ComeBackAsTheyWere) {
    const std::string path = directory_ + "/one";
    ASSERT_TRUE(write_checkpoint(path, made(7)));
    const auto read = read_checkpoint(path);
    ASSERT_TRUE(read) << read.error().message;
    const Checkpoint wanted = made(7);
    EXPECT_EQ(read->step, 7U);
    EXPECT_EQ(read->flags, wanted.flags);
    ASSERT_EQ(read->state.size(), 3U);
    for (std::size_t i = 0; i < 3; ++i) {
        const HostTensor& before = wanted.state[i].tensor;
        EXPECT_EQ(read->state[i].tensor.shape(), before.shape());
        EXPECT_EQ(std::memcmp(read->state[i].tensor.data(), before.data(), before.bytes()), 0);
    }
}

TEST_F(Checkpoints, CutShortAtAnyByteTheOneBeforeIsFound) {
    const CheckpointStore store(directory_);
    ASSERT_TRUE(store.write(made(5)));
    ASSERT_TRUE(store.write(made(9)));
    const std::string newest = directory_ + "/step-000000000009.checkpoint";
    const std::string whole = bytes(newest);
    for (std::size_t size = 0; size < whole.size(); ++size) {
        put(newest, whole.substr(0, size));
        int skipped = 0;
        const auto found = store.newest([&](const std::string&) { ++skipped; });
        ASSERT_TRUE(found && *found) << size;
        ASSERT_EQ((*found)->step, 5U) << size;
        ASSERT_EQ(skipped, 1);
    }
}

TEST_F(Checkpoints, AnyFlippedBitShows) {
    const CheckpointStore store(directory_);
    ASSERT_TRUE(store.write(made(5)));
    ASSERT_TRUE(store.write(made(9)));
    const std::string newest = directory_ + "/step-000000000009.checkpoint";
    const std::string whole = bytes(newest);
    for (std::size_t at = 0; at < whole.size(); ++at) {
        for (int bit = 0; bit < 8; ++bit) {
            std::string damaged = whole;
            damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
            put(newest, damaged);
            const auto found = store.newest([](const std::string&) {});
            // A newer version's number is refused, everything else passed over.
            if (!found) {
                ASSERT_EQ(found.error().code, ExitCode::kMismatch) << at;
                ASSERT_EQ(at, 7U);
            } else {
                ASSERT_TRUE(*found);
                ASSERT_EQ((*found)->step, 5U) << "byte " << at << ", bit " << bit;
            }
        }
    }
}

TEST_F(Checkpoints, TheNewestTwoAreKept) {
    const CheckpointStore store(directory_);
    for (const std::uint64_t step : {3U, 20U, 100U}) ASSERT_TRUE(store.write(made(step)));
    EXPECT_FALSE(std::filesystem::exists(directory_ + "/step-000000000003.checkpoint"));
    EXPECT_EQ((*store.newest([](const std::string&) {}))->step, 100U);
}

TEST_F(Checkpoints, OneThatCannotBeWrittenLeavesTheOthers) {
    const CheckpointStore store(directory_);
    ASSERT_TRUE(store.write(made(5)));
    // A directory stands where the file would be made.
    std::filesystem::create_directory(directory_ + "/step-000000000009.checkpoint.tmp");
    const auto written = store.write(made(9));
    ASSERT_FALSE(written);
    EXPECT_EQ(written.error().code, ExitCode::kRunFailed);
    EXPECT_NE(written.error().message.find("step-000000000009"), std::string::npos);
    EXPECT_EQ((*store.newest([](const std::string&) {}))->step, 5U);
}

TEST_F(Checkpoints, AnEmptyOrMissingDirectoryHasNone) {
    const auto none = CheckpointStore(directory_ + "/nowhere").newest([](const std::string&) {});
    ASSERT_TRUE(none);
    EXPECT_FALSE(*none);
}

// Found by fuzzing: it ended the program.
TEST(CheckpointFile, AHeaderThatIsNoObjectIsRefused) {
    const std::string header = "5";
    std::string file = std::string("ECOCKPT") + '\x01';
    for (const std::uint32_t number :
         {static_cast<std::uint32_t>(header.size()), crc32c(std::as_bytes(std::span(header)))})
        file.append(reinterpret_cast<const char*>(&number), sizeof number);
    const std::string path = testing::TempDir() + "/header.checkpoint";
    std::ofstream(path, std::ios::binary) << file << header;
    const auto read = read_checkpoint(path);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code, ExitCode::kBadFile);
    std::filesystem::remove(path);
}

}  // namespace
}  // namespace ecopipe
