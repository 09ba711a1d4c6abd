// What a stored picture's numbers mean: its orientation, its depth, its colours.
#include "stage_runtime/data/picture.h"

#include <gtest/gtest.h>

#include <cmath>

#include "stage_runtime/data/exif.h"
#include "stage_runtime/data/grey.h"
#include "tests/stage_runtime/data/pictures.h"

namespace ecopipe {
namespace {

using namespace pictures;  // NOLINT: the tests speak of nothing else

constexpr int kHeight = 5;
constexpr int kWidth = 9;
using Pixels = std::vector<std::uint8_t>;

Picture decoded(const std::string& file, int channels = 3) {
    auto picture = decode_picture(file, channels, "picture");
    EXPECT_TRUE(picture) << picture.error().message;
    return picture ? *std::move(picture) : Picture{};
}

// By the words of the EXIF standard: where the stored picture's row 0 and column 0 are seen.
Picture turned(const Picture& stored, int orientation) {
    Picture out = stored;
    if (orientation >= 5) std::swap(out.size.height, out.size.width);
    const int last_row = out.size.height - 1;
    const int last_column = out.size.width - 1;
    for (int i = 0; i < stored.size.height; ++i)
        for (int j = 0; j < stored.size.width; ++j) {
            int y = 0;
            int x = 0;
            switch (orientation) {
                case 1:
                    y = i;
                    x = j;
                    break;  // top, left
                case 2:
                    y = i;
                    x = last_column - j;
                    break;  // top, right
                case 3:
                    y = last_row - i;
                    x = last_column - j;
                    break;  // bottom, right
                case 4:
                    y = last_row - i;
                    x = j;
                    break;  // bottom, left
                case 5:
                    x = i;
                    y = j;
                    break;  // left, top
                case 6:
                    x = last_column - i;
                    y = j;
                    break;  // right, top
                case 7:
                    x = last_column - i;
                    y = last_row - j;
                    break;  // right, bottom
                default:
                    x = i;
                    y = last_row - j;
                    break;  // left, bottom
            }
            for (int c = 0; c < stored.channels; ++c)
                out.pixels[static_cast<std::size_t>((y * out.size.width + x) * stored.channels +
                                                    c)] =
                    stored.pixels[static_cast<std::size_t>(
                        (i * stored.size.width + j) * stored.channels + c)];
        }
    return out;
}

void expect_same(const std::string& file, const Picture& right, int channels) {
    const Picture found = decoded(file, channels);
    EXPECT_EQ(found.size.height, right.size.height);
    EXPECT_EQ(found.size.width, right.size.width);
    EXPECT_EQ(found.pixels, right.pixels);
    const auto size = picture_size(file, "picture");
    ASSERT_TRUE(size);
    EXPECT_EQ(size->height, right.size.height);
    EXPECT_EQ(size->width, right.size.width);
}

TEST(Orientation, AllEightInJpegAndPngInBothByteOrders) {
    const std::string photo = jpeg(kHeight, kWidth, noise(kHeight * kWidth, 1));
    const std::string drawing = png(kHeight, kWidth, noise(kHeight * kWidth, 2));
    for (const int channels : {1, 3})
        for (std::uint32_t orientation = 1; orientation <= 8; ++orientation)
            for (const bool little : {false, true})
                for (const std::uint32_t type : {3U, 4U}) {
                    SCOPED_TRACE(testing::Message() << orientation << little << type << channels);
                    const std::string tags = exif(orientation, little, type);
                    const int value = static_cast<int>(orientation);
                    expect_same(with_exif(photo, tags), turned(decoded(photo, channels), value),
                                channels);
                    const Picture right = turned(decoded(drawing, channels), value);
                    expect_same(with_chunk_in_front(drawing, chunk("eXIf", tags)), right, channels);
                    expect_same(with_chunk_behind(drawing, chunk("eXIf", tags)), right, channels);
                }
}

TEST(Orientation, WhatIsDamagedOrOutOfRangeIsUpright) {
    const std::string photo = jpeg(kHeight, kWidth, noise(kHeight * kWidth, 1));
    const std::string drawing = png(kHeight, kWidth, noise(kHeight * kWidth, 2));
    const std::string good = exif(6, true);
    ASSERT_EQ(exif_orientation(good), Orientation::kQuarterTurn);
    std::vector<std::string> wrong;
    // Up to the value's last byte: a cut behind it takes nothing away.
    for (std::size_t cut = 0; cut + 8 < good.size(); ++cut) wrong.push_back(good.substr(0, cut));
    for (const std::uint32_t value : {0U, 9U, 65535U}) wrong.push_back(exif(value, false));
    for (const std::uint32_t type : {0U, 1U, 2U, 5U, 13U, 65535U})
        wrong.push_back(exif(6, true, type));
    wrong.push_back("XX" + good.substr(2));
    wrong.push_back("II" + number(43, 2, true) + good.substr(4));
    for (const std::uint32_t directory : {0U, 4U, 0x7FFFFFFFU, 0xFFFFFFFFU})
        wrong.push_back(good.substr(0, 4) + number(directory, 4, true) + good.substr(8));
    std::string two = good;  // two values where one is due
    two[8 + 2 + 12 + 4] = 2;
    wrong.push_back(two);
    for (const std::string& tags : wrong) {
        EXPECT_EQ(exif_orientation(tags), Orientation::kUpright);
        expect_same(with_exif(photo, tags), decoded(photo), 3);
        expect_same(with_chunk_in_front(drawing, chunk("eXIf", tags)), decoded(drawing), 3);
    }
    // More entries than there are: those that are there count.
    EXPECT_EQ(exif_orientation(good.substr(0, 8) + number(65535, 2, true) + good.substr(10)),
              Orientation::kQuarterTurn);
    std::string unchecked = chunk("eXIf", good);
    unchecked.back() = static_cast<char>(unchecked.back() ^ 1);
    expect_same(with_chunk_in_front(drawing, unchecked), decoded(drawing), 3);
}

TEST(Orientation, TheFirstExifOfAJpegCounts) {
    const std::string photo = jpeg(kHeight, kWidth, noise(kHeight * kWidth, 1));
    const std::string xmp = "http://ns.adobe.com/xap/1.0/";
    const std::string both =
        with_app1(with_exif(with_exif(photo, exif(3, false)), exif(6, true)), xmp);
    expect_same(both, turned(decoded(photo), 6), 3);
}

TEST(StoredNumbers, SixteenBitsAreDividedBy257) {
    Pixels rows;
    for (int value = 0; value < 65536; ++value) {
        rows.push_back(static_cast<std::uint8_t>(value >> 8));
        rows.push_back(static_cast<std::uint8_t>(value & 255));
    }
    for (const int interlace : {PNG_INTERLACE_NONE, PNG_INTERLACE_ADAM7}) {
        const Picture picture =
            decoded(png(256, 256, {16, PNG_COLOR_TYPE_GRAY, interlace}, rows), 1);
        for (std::size_t value = 0; value < 65536; ++value)
            ASSERT_EQ(picture.pixels[value], std::lround(static_cast<double>(value) / 257.0));
    }
    Pixels colours = noise_bytes(std::size_t{6} * kHeight * kWidth, 4);
    const Picture colour = decoded(png(kHeight, kWidth, {16, PNG_COLOR_TYPE_RGB}, colours), 3);
    for (std::size_t i = 0; i < colour.pixels.size(); ++i)
        EXPECT_EQ(colour.pixels[i],
                  std::lround((colours[2 * i] * 256 + colours[2 * i + 1]) / 257.0));
}

TEST(StoredNumbers, GreyIsTheWeightedMeanOfPillowAndLibjpeg) {
    EXPECT_EQ(grey_of(0, 150, 0), 88);
    EXPECT_EQ(grey_of(76, 0, 0), 23);
    EXPECT_EQ(grey_of(255, 255, 255), 255);
    for (unsigned red = 0; red < 256; red += 3)
        for (unsigned green = 0; green < 256; green += 5)
            for (unsigned blue = 0; blue < 256; blue += 7)
                ASSERT_NEAR(grey_of(red, green, blue),
                            (299 * red + 587 * green + 114 * blue) / 1000.0, 0.505);
    const Pixels rgb = noise(kHeight * kWidth, 3);
    const Picture grey = decoded(png(kHeight, kWidth, rgb), 1);
    for (std::size_t i = 0; i < grey.pixels.size(); ++i)
        EXPECT_EQ(grey.pixels[i], grey_of(rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]));
}

TEST(StoredNumbers, GammaAndProfilesChangeNothing) {
    const Pixels rgb = noise(kHeight * kWidth, 5);
    for (const int depth : {8, 16}) {
        const Pixels rows = depth == 8 ? rgb : noise_bytes(rgb.size() * 2, 6);
        const PngLayout layout{depth, PNG_COLOR_TYPE_RGB};
        const std::string plain = png(kHeight, kWidth, layout, rows);
        for (const int channels : {1, 3}) {
            const Picture right = decoded(plain, channels);
            for (const double gamma : {0.45455, 1.0, 2.2})
                expect_same(png(kHeight, kWidth, layout, rows,
                                [&](png_structp writer, png_infop info) {
                                    ::png_set_gAMA(writer, info, gamma);
                                    ::png_set_cHRM(writer, info, 0.3, 0.3, 0.7, 0.3, 0.2, 0.8, 0.1,
                                                   0.05);
                                }),
                            right, channels);
            expect_same(png(kHeight, kWidth, layout, rows,
                            [](png_structp writer, png_infop info) {
                                ::png_set_sRGB(writer, info, PNG_sRGB_INTENT_PERCEPTUAL);
                            }),
                        right, channels);
            expect_same(with_chunk_in_front(plain, chunk("iCCP", "no profile")), right, channels);
            expect_same(with_chunk_in_front(plain, chunk("sBIT", "\x05\x05\x05")), right, channels);
        }
    }
}

TEST(StoredNumbers, FewBitsPalettesAndTransparency) {
    // Greys of 1, 2 and 4 bits are spread evenly.
    for (const int depth : {1, 2, 4}) {
        const int count = 1 << depth;
        Pixels rows(static_cast<std::size_t>(count) * static_cast<std::size_t>(depth) / 8 + 1);
        rows.resize((static_cast<std::size_t>(count * depth) + 7) / 8);
        for (int value = 0; value < count; ++value)
            rows[static_cast<std::size_t>(value * depth / 8)] |=
                static_cast<std::uint8_t>(value << (8 - depth - value * depth % 8));
        const Picture grey = decoded(png(1, count, {depth, PNG_COLOR_TYPE_GRAY}, rows), 3);
        for (int value = 0; value < count; ++value)
            EXPECT_EQ(grey.pixels[static_cast<std::size_t>(value) * 3 + 1],
                      value * 255 / (count - 1));
    }
    // A palette, the second of its colours half transparent, the third not given as such.
    std::array<png_color, 3> colours{{{10, 20, 30}, {200, 100, 50}, {7, 8, 9}}};
    std::array<png_byte, 2> alphas{255, 128};
    const std::string indexed =
        png(1, 3, {8, PNG_COLOR_TYPE_PALETTE}, {0, 1, 2}, [&](png_structp writer, png_infop info) {
            ::png_set_PLTE(writer, info, colours.data(), 3);
            ::png_set_tRNS(writer, info, alphas.data(), 2, nullptr);
        });
    EXPECT_EQ(decoded(indexed).pixels, (Pixels{10, 20, 30, 100, 50, 25, 7, 8, 9}));
    EXPECT_EQ(decoded(indexed, 1).pixels[1], grey_of(100, 50, 25));
    // Alpha, with linear numbers; the same at 16 bits.
    const Pixels rgba{255, 100, 3, 128, 90, 80, 70, 0, 90, 80, 70, 255};
    const Pixels right{128, 50, 2, 0, 0, 0, 90, 80, 70};
    EXPECT_EQ(decoded(png(1, 3, {8, PNG_COLOR_TYPE_RGBA}, rgba)).pixels, right);
    Pixels wide;
    for (const std::uint8_t value : rgba) wide.insert(wide.end(), {value, value});
    EXPECT_EQ(decoded(png(1, 3, {16, PNG_COLOR_TYPE_RGBA}, wide)).pixels, right);
    EXPECT_EQ(decoded(png(1, 2, {8, PNG_COLOR_TYPE_GRAY_ALPHA}, {200, 128, 9, 255}), 1).pixels,
              (Pixels{100, 9}));
    // One value named transparent; at 16 bits it is the whole value that counts.
    const auto transparent = [](png_structp writer, png_infop info) {
        png_color_16 named{};
        named.gray = 0x1234;
        ::png_set_tRNS(writer, info, nullptr, 0, &named);
    };
    EXPECT_EQ(
        decoded(png(1, 2, {16, PNG_COLOR_TYPE_GRAY}, {0x12, 0x34, 0x12, 0x35}, transparent), 1)
            .pixels,
        (Pixels{0, 0x12}));
}

TEST(StoredNumbers, InterlacedIsTheSamePicture) {
    const int side = 13;
    for (const int type : {PNG_COLOR_TYPE_RGB, PNG_COLOR_TYPE_RGBA, PNG_COLOR_TYPE_GRAY}) {
        const std::size_t each = type == PNG_COLOR_TYPE_RGBA  ? 4
                                 : type == PNG_COLOR_TYPE_RGB ? 3
                                                              : 1;
        const Pixels rows = noise_bytes(each * side * side, 8);
        for (const int channels : {1, 3})
            expect_same(png(side, side, {8, type, PNG_INTERLACE_ADAM7}, rows),
                        decoded(png(side, side, {8, type}, rows), channels), channels);
    }
}

TEST(StoredNumbers, JpegOfGreyAndOfFourInks) {
    const Pixels flat(64, 90);
    const std::string grey = jpeg(8, 8, flat, JCS_GRAYSCALE);
    EXPECT_EQ(decoded(grey, 1).pixels, flat);
    EXPECT_EQ(decoded(grey, 3).pixels, Pixels(192, 90));
    // What is left of the light of each ink, as Adobe's programs store it; red has no cyan.
    Pixels inks;
    for (int i = 0; i < 64; ++i) inks.insert(inks.end(), {255, 40, 20, 200});
    const std::string red = jpeg(8, 8, inks, JCS_CMYK);
    const Picture colours = decoded(red, 3);
    for (std::size_t i = 0; i < 64; ++i) {
        EXPECT_NEAR(colours.pixels[3 * i], 200, 2);
        EXPECT_NEAR(colours.pixels[3 * i + 1], 40 * 200 / 255, 2);
        EXPECT_NEAR(colours.pixels[3 * i + 2], 20 * 200 / 255, 2);
    }
    EXPECT_NEAR(decoded(red, 1).pixels[0], grey_of(200, 31, 16), 2);
}

}  // namespace
}  // namespace ecopipe
