#pragma once
// Pictures for tests, written by libjpeg and libpng, and the EXIF that may be put into them.

// clang-format off: jpeglib.h needs stdio's types before it.
#include <cstdio>
#include <jpeglib.h>
// clang-format on

#include <gtest/gtest.h>
#include <png.h>
#include <zlib.h>

#include <csetjmp>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "core/random.h"

namespace ecopipe::pictures {

struct PngLayout {
    int bit_depth = 8;
    int colour_type = PNG_COLOR_TYPE_RGB;
    int interlace = PNG_INTERLACE_NONE;
};

// `rows` are as PNG stores them, one after another. `prepare` sets what else the header is to have.
inline std::string png(
    int height, int width, const PngLayout& layout, std::vector<std::uint8_t> rows,
    const std::function<void(png_structp, png_infop)>& prepare = [](png_structp, png_infop) {}) {
    std::string out;
    png_structp writer =
        ::png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
    png_infop info = ::png_create_info_struct(writer);
    ::png_set_write_fn(
        writer, &out,
        [](png_structp self, png_bytep data, std::size_t size) {
            static_cast<std::string*>(::png_get_io_ptr(self))
                ->append(reinterpret_cast<const char*>(data), size);
        },
        [](png_structp) {});
    ::png_set_IHDR(writer, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height),
                   layout.bit_depth, layout.colour_type, layout.interlace,
                   PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    prepare(writer, info);
    ::png_write_info(writer, info);
    const std::size_t row_bytes = ::png_get_rowbytes(writer, info);
    EXPECT_EQ(rows.size(), row_bytes * static_cast<std::size_t>(height));
    std::vector<png_bytep> at;
    for (std::size_t y = 0; y < static_cast<std::size_t>(height); ++y)
        at.push_back(rows.data() + y * row_bytes);
    ::png_write_image(writer, at.data());
    ::png_write_end(writer, nullptr);
    ::png_destroy_write_struct(&writer, &info);
    return out;
}

inline std::string png(int height, int width, const std::vector<std::uint8_t>& rgb) {
    return png(height, width, {}, rgb);
}

// `space`: JCS_RGB, JCS_GRAYSCALE or JCS_CMYK, which says how many bytes a pixel has.
inline std::string jpeg(int height, int width, const std::vector<std::uint8_t>& pixels,
                        J_COLOR_SPACE space = JCS_RGB) {
    jpeg_compress_struct info{};
    jpeg_error_mgr errors{};
    info.err = ::jpeg_std_error(&errors);
    ::jpeg_create_compress(&info);
    unsigned char* bytes = nullptr;
    unsigned long size = 0;
    ::jpeg_mem_dest(&info, &bytes, &size);
    info.image_height = static_cast<JDIMENSION>(height);
    info.image_width = static_cast<JDIMENSION>(width);
    info.input_components = space == JCS_CMYK ? 4 : space == JCS_RGB ? 3 : 1;
    info.in_color_space = space;
    ::jpeg_set_defaults(&info);
    ::jpeg_set_quality(&info, 95, TRUE);
    ::jpeg_start_compress(&info, TRUE);
    const auto row_bytes = static_cast<std::ptrdiff_t>(width) * info.input_components;
    for (int y = 0; y < height; ++y) {
        std::vector<std::uint8_t> row(pixels.begin() + y * row_bytes,
                                      pixels.begin() + (y + 1) * row_bytes);
        JSAMPROW at = row.data();
        ::jpeg_write_scanlines(&info, &at, 1);
    }
    ::jpeg_finish_compress(&info);
    std::string out(reinterpret_cast<char*>(bytes), size);
    ::jpeg_destroy_compress(&info);
    std::free(bytes);
    return out;
}

inline std::vector<std::uint8_t> noise_bytes(std::size_t count, std::uint64_t seed) {
    Rng rng(seed);
    std::vector<std::uint8_t> out(count);
    for (auto& value : out) value = static_cast<std::uint8_t>(rng.below(256));
    return out;
}

inline std::vector<std::uint8_t> noise(int pixels, std::uint64_t seed) {
    return noise_bytes(static_cast<std::size_t>(pixels) * 3, seed);
}

inline std::string number(std::uint32_t value, std::size_t size, bool little) {
    std::string out(size, '\0');
    for (std::size_t i = 0; i < size; ++i)
        out[little ? i : size - 1 - i] = static_cast<char>(value >> (8 * i));
    return out;
}

// A TIFF structure of one directory: a maker's name, which is passed over, and the orientation.
inline std::string exif(std::uint32_t orientation, bool little, std::uint32_t type = 3) {
    const auto entry = [&](std::uint32_t tag, std::uint32_t kind, const std::string& value) {
        return number(tag, 2, little) + number(kind, 2, little) + number(1, 4, little) + value;
    };
    const std::string value = type == 4 ? number(orientation, 4, little)
                                        : number(orientation, 2, little) + std::string(2, '\0');
    return std::string(little ? "II" : "MM") + number(42, 2, little) + number(8, 4, little) +
           number(2, 2, little) + entry(0x010F, 2, std::string(4, '\0')) +
           entry(0x0112, type, value) + number(0, 4, little);
}

// The JPEG with an APP1 of these bytes behind its first two.
inline std::string with_app1(const std::string& file, const std::string& data) {
    return file.substr(0, 2) + "\xFF\xE1" +
           number(static_cast<std::uint32_t>(data.size() + 2), 2, false) + data + file.substr(2);
}

inline std::string with_exif(const std::string& file, const std::string& tiff) {
    return with_app1(file, std::string("Exif\0\0", 6) + tiff);
}

inline std::string chunk(const std::string& name, const std::string& data) {
    const std::string checked = name + data;
    const auto sum = ::crc32(0, reinterpret_cast<const Bytef*>(checked.data()),
                             static_cast<uInt>(checked.size()));
    return number(static_cast<std::uint32_t>(data.size()), 4, false) + checked +
           number(static_cast<std::uint32_t>(sum), 4, false);
}

inline constexpr std::size_t kPngHeadBytes = 8 + 25;  // signature and IHDR
inline constexpr std::size_t kPngTailBytes = 12;      // IEND

inline std::string with_chunk_in_front(const std::string& file, const std::string& chunk) {
    return file.substr(0, kPngHeadBytes) + chunk + file.substr(kPngHeadBytes);
}

inline std::string with_chunk_behind(const std::string& file, const std::string& chunk) {
    const std::size_t tail = file.size() - kPngTailBytes;
    return file.substr(0, tail) + chunk + file.substr(tail);
}

}  // namespace ecopipe::pictures
