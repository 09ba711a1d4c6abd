// Folders of pictures and files of tensors: what is read, what is refused, and how it is changed
// on the way.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/files.h"
#include "core/random.h"
#include "stage_runtime/data/augmentation.h"
#include "stage_runtime/data/dataset.h"
#include "stage_runtime/data/derived_dataset.h"
#include "stage_runtime/data/open_data.h"
#include "stage_runtime/data/picture.h"
#include "stage_runtime/data/safetensors.h"
#include "stage_runtime/data/target_weight.h"
#include "tests/stage_runtime/data/pictures.h"

namespace ecopipe {
namespace {

namespace fs = std::filesystem;

using pictures::jpeg;
using pictures::noise;
using pictures::png;

class OwnData : public testing::Test {
  protected:
    void SetUp() override {
        root_ = fs::temp_directory_path() / ("ecopipe-own-data-" + std::to_string(::getpid()));
        fs::remove_all(root_);
        fs::create_directories(root_);
    }
    void TearDown() override { fs::remove_all(root_); }
    void put(const std::string& name, const std::string& bytes) const {
        fs::create_directories((root_ / name).parent_path());
        ASSERT_TRUE(write_file_atomically((root_ / name).string(), bytes));
    }
    void put_pictures() const {
        for (const char* split : {"train", "test"})
            for (const char* kind : {"cat", "dog"})
                for (int i = 0; i < 3; ++i) {
                    const auto pixels = noise(8 * 8, static_cast<std::uint64_t>(i));
                    const std::string name =
                        std::string(split) + "/" + kind + "/" + std::to_string(i);
                    put(name + (i == 0 ? ".jpg" : ".png"),
                        i == 0 ? jpeg(8, 8, pixels) : png(8, 8, pixels));
                }
    }
    [[nodiscard]] Result<DataSplits> open(const std::string& format,
                                          const DataOptions& options = {}) const {
        return open_data(format + ":" + root_.string(), options);
    }
    [[nodiscard]] std::string problem(const std::string& format,
                                      const DataOptions& options = {}) const {
        const auto opened = open(format, options);
        return opened ? "" : opened.error().message;
    }
    void expect_refused(const std::string& format, const std::string& part,
                        const DataOptions& options = {}) const {
        const std::string message = problem(format, options);
        EXPECT_NE(message.find(part), std::string::npos) << message << "\nexpected: " << part;
        EXPECT_EQ(message.find('\n'), std::string::npos);
    }
    fs::path root_;
};

HostTensor floats(Shape shape, float first = 0) {
    HostTensor tensor = HostTensor::allocate(DType::kF32, std::move(shape));
    for (float& value : tensor.as<float>()) value = first++;
    return tensor;
}

HostTensor integers(const std::vector<std::int64_t>& values, Shape shape) {
    HostTensor tensor = HostTensor::allocate(DType::kI64, std::move(shape));
    std::copy(values.begin(), values.end(), tensor.as<std::int64_t>().begin());
    return tensor;
}

TEST_F(OwnData, ClassesHaveNamesAndFollowAnotherList) {
    put_pictures();
    auto splits = open("folder", {{}, 5});
    ASSERT_TRUE(splits) << splits.error().message;
    EXPECT_EQ(splits->train->class_names(), (std::vector<std::string>{"cat", "dog"}));
    auto same = with_classes(std::move(splits->train), {"cat", "dog"}, "--data");
    ASSERT_TRUE(same);
    EXPECT_EQ((*same)->label(1), 1);
    auto mapped = with_classes(std::move(*same), {"dog", "emu", "cat"}, "--data");
    ASSERT_TRUE(mapped) << mapped.error().message;
    EXPECT_EQ((*mapped)->num_classes(), 3);
    EXPECT_EQ((*mapped)->class_names(), (std::vector<std::string>{"dog", "emu", "cat"}));
    EXPECT_EQ((*mapped)->size(), 5);
    const std::vector<std::int64_t> two{0, 1};  // a cat and a dog
    const auto batch = (*mapped)->batch(two);
    ASSERT_TRUE(batch) << batch.error().message;
    for (std::int64_t i = 0; i < 2; ++i) {
        EXPECT_EQ((*mapped)->label(i), i == 0 ? 2 : 0);
        EXPECT_EQ(batch->labels.as<std::int64_t>()[static_cast<std::size_t>(i)],
                  (*mapped)->label(i));
    }
    const auto stranger = with_classes(std::move(splits->test), {"cat", "emu"}, "--data");
    ASSERT_FALSE(stranger);
    EXPECT_EQ(stranger.error().message,
              "--data: its class dog is not among the federation's: cat, emu");
}

// Labels without names are the list's by their number, as far as it goes.
TEST_F(OwnData, DataWithoutNamesKeepTheirLabels) {
    auto splits = open_data("synthetic:1x8x8:3:9", {});
    ASSERT_TRUE(splits) << splits.error().message;
    EXPECT_TRUE(splits->train->class_names().empty());
    auto kept = with_classes(std::move(splits->train), {"a", "b", "c", "d"}, "--data");
    ASSERT_TRUE(kept) << kept.error().message;
    EXPECT_EQ((*kept)->num_classes(), 3);
    const auto more = with_classes(std::move(splits->test), {"a", "b"}, "--data");
    ASSERT_FALSE(more);
    EXPECT_EQ(more.error().message, "--data: expected at most the 2 classes of the list, found 3");
}

TEST_F(OwnData, AFolderGivesItsClassesInTurn) {
    put_pictures();
    put("train/.hidden", "x");
    const auto splits = open("folder");
    ASSERT_TRUE(splits) << splits.error().message;
    const Dataset& train = *splits->train;
    EXPECT_EQ(train.size(), 6);
    EXPECT_EQ(train.num_classes(), 2);
    EXPECT_EQ(train.sample_shape(), (Shape{3, 8, 8}));
    EXPECT_FALSE(splits->validation);
    for (std::int64_t i = 0; i < 6; ++i) EXPECT_EQ(train.label(i), i % 2);
    const std::vector<std::int64_t> two{2, 3};  // cat/1.png, dog/1.png: lossless
    const auto batch = train.batch(two);
    ASSERT_TRUE(batch) << batch.error().message;
    const auto pixels = noise(64, 1);
    for (std::size_t c = 0; c < 3; ++c)
        for (std::size_t p = 0; p < 64; ++p)
            EXPECT_EQ(batch->inputs.as<float>()[c * 64 + p],
                      static_cast<float>(pixels[p * 3 + c]) / 255.0F);
    EXPECT_EQ(batch->labels.as<std::int64_t>()[1], 1);
    const auto grey = open("folder", {{}, 0, 1});
    EXPECT_EQ(grey->train->sample_shape(), (Shape{1, 8, 8}));
    EXPECT_TRUE(grey->train->batch(two));
    const auto limited = open("folder", {{1}, 2});
    EXPECT_EQ(limited->train->size(), 2);
    EXPECT_EQ(limited->train->label(0), 1);
    EXPECT_EQ(limited->test->size(), 3);
}

TEST_F(OwnData, FoldersThatDoNotFitAreRefused) {
    expect_refused("folder", "train: cannot be read");
    put_pictures();
    put("train/cat/9.png", png(8, 9, noise(72, 1)));
    expect_refused("folder",
                   "train/cat/9.png: expected 8x8 as the first picture, found 8x9; give "
                   "--resize HxW");
    DataOptions resized;
    resized.height = resized.width = 5;
    EXPECT_EQ(problem("folder", resized), "");
    fs::remove(root_ / "train/cat/9.png");
    put("train/cat/notes.txt", "x");
    expect_refused("folder", "notes.txt: expected a .jpg or .png file");
    fs::remove(root_ / "train/cat/notes.txt");
    put("test/emu/1.png", png(8, 8, noise(64, 1)));
    expect_refused("folder", "found 3; emu is in one alone");
    fs::remove_all(root_ / "test/emu");
    put("train/readme.png", png(8, 8, noise(64, 1)));
    expect_refused("folder", "expected a directory for each class");
    fs::remove(root_ / "train/readme.png");
    put("validation/cat/1.png", png(8, 8, noise(64, 1)));
    expect_refused("folder", "validation: expected the directories train, val, test");
    fs::remove_all(root_ / "validation");
    for (const char* split : {"train", "test"}) fs::create_directories(root_ / split / "emu");
    expect_refused("folder", "train/emu: holds no pictures");
}

// Sizes are checked, and taken for the model, as the pictures are seen.
TEST_F(OwnData, PicturesStoredSidewaysAreOfTheirUprightSize) {
    using pictures::exif;
    const auto pixels = noise(6 * 8, 1);
    put("train/cat/0.jpg", pictures::with_exif(jpeg(8, 6, pixels), exif(6, true)));
    put("train/cat/1.png", png(6, 8, pixels));
    put("train/cat/2.png",
        pictures::with_chunk_behind(png(8, 6, pixels), pictures::chunk("eXIf", exif(8, false))));
    const auto splits = open("folder");
    ASSERT_TRUE(splits) << splits.error().message;
    EXPECT_EQ(splits->train->sample_shape(), (Shape{3, 6, 8}));
    const std::vector<std::int64_t> all{0, 1, 2};
    EXPECT_TRUE(splits->train->batch(all));
    put("train/cat/3.jpg", jpeg(8, 6, pixels));
    expect_refused("folder", "train/cat/3.jpg: expected 6x8 as the first picture, found 8x6");
    fs::remove(root_ / "train/cat/3.jpg");
    // The orientation behind more pixels than are read for a header; a header longer than that.
    const std::string large = png(500, 900, noise(500 * 900, 2));
    std::string long_header = jpeg(900, 500, noise(500 * 900, 2));
    for (int i = 0; i < 20; ++i)
        long_header = pictures::with_app1(long_header, std::string(65000, 'x'));
    long_header = pictures::with_exif(long_header, exif(6, true));
    put("train/cat/0.jpg", long_header);
    put("train/cat/1.png", large);
    put("train/cat/2.png", pictures::with_chunk_behind(png(900, 500, noise(500 * 900, 2)),
                                                       pictures::chunk("eXIf", exif(8, false))));
    const auto again = open("folder");
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(again->train->sample_shape(), (Shape{3, 500, 900}));
}

TEST_F(OwnData, AModelOfOneChannelSeesTheSameGreyHoweverItIsStored) {
    const auto values = pictures::noise_bytes(64, 3);
    std::vector<std::uint8_t> twice;
    std::vector<std::uint8_t> thrice;
    for (const std::uint8_t value : values) {
        twice.insert(twice.end(), {value, value});  // value * 257
        thrice.insert(thrice.end(), {value, value, value});
    }
    put("train/cat/0.png", pictures::png(8, 8, {8, PNG_COLOR_TYPE_GRAY}, values));
    put("train/cat/1.png", pictures::png(8, 8, {16, PNG_COLOR_TYPE_GRAY}, twice));
    put("train/cat/2.png", png(8, 8, thrice));
    const auto splits = open("folder", {{}, 0, 1});
    ASSERT_TRUE(splits) << splits.error().message;
    const std::vector<std::int64_t> all{0, 1, 2};
    const auto batch = splits->train->batch(all);
    ASSERT_TRUE(batch);
    for (std::size_t i = 0; i < 3 * 64; ++i)
        EXPECT_EQ(batch->inputs.as<float>()[i], static_cast<float>(values[i % 64]) / 255.0F);
}

// Whatever the bytes are: a picture or one line. (What a PNG lacks of its closing 12 bytes is no
// part of the picture.)
TEST_F(OwnData, HostilePicturesGiveOneLine) {
    const std::string good_jpeg = jpeg(16, 16, noise(256, 1));
    const std::string good_png = png(16, 16, noise(256, 2));
    for (const std::string& good : {good_jpeg, good_png}) {
        ASSERT_TRUE(decode_picture(good, 3, "good"));
        for (std::size_t cut = 0; cut + 14 < good.size(); cut += 3) {
            const auto decoded = decode_picture(good.substr(0, cut), 3, "cut.jpg");
            ASSERT_FALSE(decoded) << cut << " of " << good.size();
            EXPECT_TRUE(decoded.error().message.starts_with("cut.jpg: "));
            EXPECT_EQ(decoded.error().message.find('\n'), std::string::npos);
        }
        Rng rng(3);
        for (int round = 0; round < 3000; ++round) {
            std::string damaged = good;
            for (int flips = 0; flips < 4; ++flips)
                damaged[rng.below(damaged.size())] = static_cast<char>(rng.below(256));
            const auto decoded = decode_picture(damaged, round % 2 == 0 ? 3 : 1, "damaged");
            if (decoded) {
                EXPECT_EQ(decoded->pixels.size(),
                          static_cast<std::size_t>(decoded->size.height) *
                              static_cast<std::size_t>(decoded->size.width) *
                              static_cast<std::size_t>(decoded->channels));
            }
        }
    }
    std::string huge = good_png;  // 60000 x 60000 in IHDR, with a checksum that is wrong anyway
    huge[16] = huge[20] = 0;
    huge[18] = huge[22] = static_cast<char>(0xEA);
    EXPECT_FALSE(picture_size(huge, "huge"));
    const std::size_t frame = good_jpeg.find("\xFF\xC0");
    ASSERT_NE(frame, std::string::npos);
    std::string wide = good_jpeg;
    for (std::size_t i = 5; i < 9; ++i) wide[frame + i] = static_cast<char>(0xF0);
    const auto size = picture_size(wide, "wide");
    ASSERT_FALSE(size);
    EXPECT_EQ(size.error().message, "wide: expected at most 67108864 pixels, found 61680x61680");
    EXPECT_EQ(decode_picture("GIF89a", 3, "x.png").error().message,
              "x.png: expected a JPEG or PNG file, found neither");
}

TEST_F(OwnData, ADamagedPictureIsNamedWhenItIsRead) {
    put_pictures();
    std::string cut = png(8, 8, noise(64, 1));
    cut.resize(cut.size() / 2);
    put("train/dog/2.png", cut);
    const auto splits = open("folder");
    ASSERT_TRUE(splits);
    const std::vector<std::int64_t> last{5};
    const auto batch = splits->train->batch(last);
    ASSERT_FALSE(batch);
    EXPECT_NE(batch.error().message.find("train/dog/2.png: the PNG file is damaged"),
              std::string::npos);
}

TEST(Resize, IsATriangleFilter) {
    Picture picture;
    picture.size = {1, 4};
    picture.channels = 1;
    picture.pixels = {0, 100, 200, 50};
    std::vector<float> out(8);
    write_resized(picture, {1, 2}, out.data());  // weights 1/8 3/8 3/8 1/8, cut at the edges
    EXPECT_NEAR(out[0] * 255, (3 * 0 + 3 * 100 + 200) / 7.0, 1e-3);
    EXPECT_NEAR(out[1] * 255, (100 + 3 * 200 + 3 * 50) / 7.0, 1e-3);
    write_resized(picture, {1, 8}, out.data());  // half-pixel centres
    EXPECT_NEAR(out[0] * 255, 0, 1e-3);
    EXPECT_NEAR(out[1] * 255, 25, 1e-3);
    EXPECT_NEAR(out[2] * 255, 75, 1e-3);
    write_resized(picture, {2, 4}, out.data());
    EXPECT_EQ(out[1], out[5]);
}

TEST_F(OwnData, TensorsComeAsTheyAre) {
    const TensorMap train{{"inputs", integers({1, 2, 3, 4, 5, 6}, {3, 2})},
                          {"targets", integers({0, 2, 1}, {3})}};
    ASSERT_TRUE(write_safetensors((root_ / "train.safetensors").string(), train));
    const auto splits = open("tensors");
    ASSERT_TRUE(splits) << splits.error().message;
    EXPECT_FALSE(splits->test);
    EXPECT_EQ(splits->train->num_classes(), 3);
    EXPECT_EQ(splits->train->label(1), 2);
    const std::vector<std::int64_t> indices{2, 0};
    const auto batch = splits->train->batch(indices);
    EXPECT_EQ(batch->inputs.dtype(), DType::kI64);
    EXPECT_EQ(batch->inputs.shape(), (Shape{2, 2}));
    EXPECT_EQ(batch->inputs.as<std::int64_t>()[0], 5);
    EXPECT_EQ(batch->labels.as<std::int64_t>()[0], 1);
    DataOptions normalized;
    normalized.normalize = {{0.5F}, {1}};
    expect_refused("tensors", "--normalize: expected inputs that are numbers, found I64",
                   normalized);
}

TEST_F(OwnData, IgnoredTargetsAreNoClasses) {
    HostTensor targets = HostTensor::allocate(DType::kI64, {2, 3});
    const std::vector<std::int64_t> values{4, -100, 0, 4, 255, -100};
    std::copy(values.begin(), values.end(), targets.as<std::int64_t>().begin());
    ASSERT_TRUE(write_safetensors((root_ / "train.safetensors").string(),
                                  {{"inputs", floats({2, 3})}, {"targets", targets}}));
    const auto splits = open("tensors");
    ASSERT_TRUE(splits) << splits.error().message;
    EXPECT_EQ(splits->train->num_classes(), 256);
    const auto counts = class_counts(*splits->train, 255);
    ASSERT_TRUE(counts);
    EXPECT_EQ((*counts)[4], 2U);
    EXPECT_EQ((*counts)[0], 1U);
    EXPECT_EQ((*counts)[255], 0U);
    LossSpec loss;
    EXPECT_EQ(target_weight(loss, targets), 4);
    loss.class_weights = {0.5, 1, 1, 1, 2};
    loss.ignore_index = 255;
    HostTensor classes = HostTensor::allocate(DType::kI64, {3});
    const std::vector<std::int64_t> three{0, 4, 255};
    std::copy(three.begin(), three.end(), classes.as<std::int64_t>().begin());
    EXPECT_EQ(target_weight(loss, classes), 2.5);
    loss.name = "mse";
    EXPECT_EQ(target_weight(loss, floats({2, 3})), 6);
    EXPECT_EQ(loss_divisor(0), 1);
    DataOptions every_target_counts;
    every_target_counts.ignored_class = std::nullopt;
    expect_refused("tensors", "expected 0 to 999999, found -100", every_target_counts);
}

TEST_F(OwnData, TensorsThatDoNotFitAreRefused) {
    const auto expect = [&](const TensorMap& train, const std::string& part) {
        ASSERT_TRUE(write_safetensors((root_ / "train.safetensors").string(), train));
        expect_refused("tensors", part);
    };
    expect_refused("tensors", "train.safetensors");
    const HostTensor inputs = floats({2, 3});
    const HostTensor targets = integers({0, 1}, {2});
    expect({{"inputs", inputs}}, "targets: is missing");
    expect({{"inputs", inputs}, {"targets", targets}, {"weights", inputs}}, "found weights");
    expect({{"inputs", HostTensor::allocate(DType::kF64, {2, 3})}, {"targets", targets}},
           "inputs: expected F32, I64, I32 or U8, found F64");
    expect({{"inputs", floats({3, 3})}, {"targets", targets}}, "one for each of the 3 inputs");
    expect({{"inputs", floats({2})}, {"targets", targets}}, "inputs: expected [samples, ...]");
    expect({{"inputs", inputs}, {"targets", integers({0, -1}, {2})}},
           "integer targets are classes: expected 0 to 999999, or -100 to ignore one, found -1");
    HostTensor infinite = floats({2, 3});
    infinite.as<float>()[4] = std::numeric_limits<float>::infinity();
    expect({{"inputs", infinite}, {"targets", targets}}, "expected finite numbers, found inf at");
    ASSERT_TRUE(write_safetensors((root_ / "train.safetensors").string(),
                                  {{"inputs", inputs}, {"targets", targets}}));
    ASSERT_TRUE(write_safetensors((root_ / "test.safetensors").string(),
                                  {{"inputs", inputs}, {"targets", integers({0, 2}, {2})}}));
    expect_refused("tensors", "test.safetensors: targets: expected classes up to 1");
    ASSERT_TRUE(write_safetensors((root_ / "test.safetensors").string(),
                                  {{"inputs", floats({2, 4})}, {"targets", targets}}));
    expect_refused("tensors", "test.safetensors: inputs: expected F32 [3] a sample");
}

TEST_F(OwnData, ValidationIsAKeyedPartOfTraining) {
    TensorMap train{{"inputs", floats({50, 2})}, {"targets", floats({50, 1})}};
    ASSERT_TRUE(write_safetensors((root_ / "train.safetensors").string(), train));
    DataOptions options;
    options.validation_fraction = 0.2;
    options.normalize = {{1}, {2}};
    const auto members = [&](std::uint64_t seed) {
        options.seed = seed;
        const auto splits = open("tensors", options);
        std::vector<std::set<float>> out;
        for (const auto* split : {&splits->train, &splits->validation}) {
            const auto all = first_samples(**split, static_cast<int>((*split)->size()));
            EXPECT_FLOAT_EQ(all->inputs.as<float>()[0], (all->labels.as<float>()[0] * 2 - 1) / 2);
            out.emplace_back(all->labels.as<float>().begin(), all->labels.as<float>().end());
        }
        EXPECT_EQ(out[0].size(), 40U);
        EXPECT_EQ(out[1].size(), 10U);
        for (const float value : out[1]) EXPECT_FALSE(out[0].contains(value));
        return out;
    };
    EXPECT_EQ(members(1), members(1));
    EXPECT_NE(members(1), members(2));
    options.validation_fraction = 0.001;
    expect_refused("tensors", "leaves none to validate on", options);
    ASSERT_TRUE(write_safetensors((root_ / "val.safetensors").string(), train));
    options.validation_fraction = 0.5;
    expect_refused("tensors", "have a validation split of their own", options);
}

TEST(Augmentation, IsKeyedAndMovesWholeImages) {
    const auto how = parse_augmentation("flip,crop", {{0.5F}, {0.25F}});
    ASSERT_TRUE(how);
    EXPECT_FALSE(parse_augmentation("flip,spin", {}));
    const auto augmented = [&](std::uint64_t epoch, std::vector<std::int64_t> indices) {
        Batch batch{floats({static_cast<std::int64_t>(indices.size()), 1, 16, 16}, 1), {}};
        augment(batch, indices, *how, 7, epoch);
        const auto values = batch.inputs.as<float>();
        return std::vector<float>(values.begin(), values.end());
    };
    EXPECT_EQ(augmented(1, {3}), augmented(1, {3}));
    int mirrored = 0;
    std::set<std::vector<float>> seen;
    for (std::uint64_t epoch = 0; epoch < 64; ++epoch) {
        const auto image = augmented(epoch, {3});
        seen.insert(image);
        mirrored += image[8 * 16 + 8] > image[8 * 16 + 9] ? 1 : 0;
        for (const float value : image) EXPECT_TRUE(value >= 1 || value == -2) << value;
    }
    EXPECT_GT(seen.size(), 20U);  // of 50: two directions, five shifts each way
    EXPECT_GT(mirrored, 16);
    EXPECT_LT(mirrored, 48);
    // A sample is treated alike in whatever company it comes.
    const auto alone = augmented(1, {9});
    Batch pair{floats({2, 1, 16, 16}, 1), {}};
    const auto values = pair.inputs.as<float>();
    std::copy(values.begin(), values.begin() + 256, values.begin() + 256);
    augment(pair, std::vector<std::int64_t>{4, 9}, *how, 7, 1);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), values.begin() + 256));
}

TEST(Normalization, IsReadStrictly) {
    const auto read = parse_normalization("0.5,0.25/1,2");
    ASSERT_TRUE(read);
    EXPECT_EQ(read->mean, (std::vector<float>{0.5F, 0.25F}));
    EXPECT_EQ(read->deviation, (std::vector<float>{1, 2}));
    for (const char* wrong : {"", "0.5", "0.5/0", "0.5/-1", "a/1", "0.5/1,", "inf/1", "0.5/nan"})
        EXPECT_FALSE(parse_normalization(wrong)) << wrong;
}

}  // namespace
}  // namespace ecopipe
