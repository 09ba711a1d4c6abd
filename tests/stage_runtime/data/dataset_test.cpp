#include "stage_runtime/data/dataset.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/files.h"
#include "stage_runtime/data/open_data.h"

namespace ecopipe {
namespace {

class DataFiles : public testing::Test {
  protected:
    void SetUp() override {
        directory_ =
            std::filesystem::temp_directory_path() / ("ecopipe-data-" + std::to_string(::getpid()));
        std::filesystem::create_directories(directory_);
    }
    void TearDown() override { std::filesystem::remove_all(directory_); }
    void write(const std::string& name, const std::string& bytes) const {
        ASSERT_TRUE(write_file_atomically(directory_ / name, bytes));
    }
    static std::string idx3(unsigned n, const std::string& pixels) {
        return std::string("\0\0\x08\x03\0\0\0", 7) + static_cast<char>(n) +
               std::string("\0\0\0\x02\0\0\0\x02", 8) + pixels;
    }
    static std::string idx1(const std::string& labels) {
        return std::string("\0\0\x08\x01\0\0\0", 7) + static_cast<char>(labels.size()) + labels;
    }
    void write_idx() const {
        write("train-images-idx3-ubyte", idx3(3, std::string("\0\xFF\x33\x66", 4) + "abcdefgh"));
        write("train-labels-idx1-ubyte", idx1(std::string("\1\0\1", 3)));
        write("t10k-images-idx3-ubyte", idx3(1, "abcd"));
        write("t10k-labels-idx1-ubyte", idx1(std::string("\0", 1)));
    }
    [[nodiscard]] std::string problem(const DataOptions& options = {}) const {
        const auto opened = open_data("idx:" + directory_.string(), options);
        return opened ? "" : opened.error().message;
    }
    std::filesystem::path directory_;
};

TEST_F(DataFiles, ReadsIdxAndScalesToOne) {
    write_idx();
    const auto data = open_data("idx:" + directory_.string(), {});
    ASSERT_TRUE(data) << data.error().message;
    EXPECT_EQ(data->train->size(), 3);
    EXPECT_EQ(data->train->sample_shape(), (Shape{1, 2, 2}));
    EXPECT_EQ(data->train->num_classes(), 2);
    const std::vector<std::int64_t> first{0};
    const Batch batch = data->train->batch(first).value();
    EXPECT_EQ(batch.inputs.as<float>()[1], 1.0F);
    EXPECT_FLOAT_EQ(batch.inputs.as<float>()[2], 0.2F);
    EXPECT_EQ(batch.labels.as<std::int64_t>()[0], 1);
}

TEST_F(DataFiles, KeepsClassesThenTheFirstAndRepeatsChannels) {
    write_idx();
    const auto data = open_data("idx:" + directory_.string(), {{0}, 1, 3});
    ASSERT_TRUE(data) << data.error().message;
    EXPECT_EQ(data->train->size(), 1);
    EXPECT_EQ(data->train->label(0), 0);
    EXPECT_EQ(data->train->num_classes(), 2);
    const std::vector<std::int64_t> first{0};
    const Batch batch = data->train->batch(first).value();
    EXPECT_EQ(batch.inputs.shape(), (Shape{1, 3, 2, 2}));
    EXPECT_FLOAT_EQ(batch.inputs.as<float>()[8], static_cast<float>('a') / 255.0F);
    EXPECT_NE(problem({{7}, 0, 0}), "");
}

TEST_F(DataFiles, RefusesMissingTruncatedAndInconsistentFiles) {
    EXPECT_NE(problem().find("train-images-idx3-ubyte"), std::string::npos);
    write_idx();
    write("train-images-idx3-ubyte", idx3(3, "short"));
    EXPECT_NE(problem().find("is truncated: expected 12 bytes of data, found 5"),
              std::string::npos);
    write("train-images-idx3-ubyte", idx3(3, std::string(13, 'x')));
    EXPECT_NE(problem().find("bytes after its data"), std::string::npos);
    write("train-images-idx3-ubyte", idx3(2, std::string(8, 'x')));
    EXPECT_NE(problem().find("expected 2 labels"), std::string::npos);
    write("train-images-idx3-ubyte", "\0\0");
    EXPECT_NE(problem(), "");
    write("train-images-idx3-ubyte",
          std::string("\0\0\x08\x03\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 16));
    EXPECT_NE(problem().find("absurd size"), std::string::npos);
}

TEST_F(DataFiles, ReadsCifarAndRefusesBrokenRecords) {
    for (int i = 1; i <= 5; ++i)
        write("data_batch_" + std::to_string(i) + ".bin", '\3' + std::string(3072, 'p'));
    write("test_batch.bin", '\2' + std::string(3072, 'q'));
    const std::string spec = "cifar10:" + directory_.string();
    const auto data = open_data(spec, {});
    ASSERT_TRUE(data) << data.error().message;
    EXPECT_EQ(data->train->size(), 5);
    EXPECT_EQ(data->train->label(4), 3);
    const std::vector<std::int64_t> first{0};
    write("test_batch.bin",
          '\2' + std::string(1024, '\0') + std::string(1024, '\x96') + std::string(1024, '\0'));
    const auto grey = open_data(spec, {{}, 0, 1});
    ASSERT_TRUE(grey) << grey.error().message;
    EXPECT_EQ(grey->test->sample_shape(), (Shape{1, 32, 32}));
    EXPECT_EQ(grey->test->batch(first)->inputs.as<float>()[1023], 88.0F / 255.0F);
    write("test_batch.bin", '\2' + std::string(3071, 'q'));
    EXPECT_FALSE(open_data(spec, {}));
    write("test_batch.bin", '\12' + std::string(3072, 'q'));
    EXPECT_NE(open_data(spec, {}).error().message.find("expected a label below 10"),
              std::string::npos);
}

TEST(Synthetic, IsTheSameEverywhereAndRefusesNonsense) {
    const auto a = open_data("synthetic:3x4x4:5:50", {});
    ASSERT_TRUE(a);
    EXPECT_EQ(a->train->size(), 50);
    EXPECT_EQ(a->test->size(), 10);
    const std::vector<std::int64_t> first{0};
    const float value = a->train->batch(first)->inputs.as<float>()[0] * 255.0F;
    EXPECT_EQ(static_cast<int>(value + 0.5F), 97);  // golden: data must not change by accident
    for (const char* spec :
         {"synthetic:", "synthetic:3x4:5:50", "synthetic:3x4x4:0:50", "synthetic:3x4x4:5:-1",
          "synthetic:3x4x4:5:50x", "synthetic:4096x4096x4096:5:100000000", "mnist", ""})
        EXPECT_EQ(open_data(spec, {}).error().code, ExitCode::kUsage) << spec;
}

TEST(EpochOrder, IsAKeyedPermutation) {
    const auto a = epoch_order(100, 1, 0, true);
    EXPECT_EQ(a, epoch_order(100, 1, 0, true));
    EXPECT_NE(a, epoch_order(100, 1, 1, true));
    EXPECT_NE(a, epoch_order(100, 2, 0, true));
    EXPECT_EQ(std::set<std::int64_t>(a.begin(), a.end()).size(), 100U);
    const auto plain = epoch_order(5, 1, 0, false);
    EXPECT_TRUE(std::is_sorted(plain.begin(), plain.end()));
}

}  // namespace
}  // namespace ecopipe
