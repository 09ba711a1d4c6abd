#pragma once
// A PNG file in memory, by libpng: the stored numbers, without gamma, colour profiles or linear
// light. Depths below 8 bits are spread over 0 to 255, 16 bits become v / 257, rounded, palettes
// their colours, and transparency lies over black. Methods give false when the file is damaged;
// message() then says why. Errors leave through longjmp, as in jpeg_reader.h.

#include <png.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stage_runtime/data/exif.h"

namespace ecopipe {

class PngReader {
  public:
    static constexpr const char* kFormat = "PNG";

    explicit PngReader(std::string_view bytes) : bytes_(bytes) {}
    PngReader(const PngReader&) = delete;
    PngReader& operator=(const PngReader&) = delete;
    ~PngReader();

    [[nodiscard]] bool read_header();
    // As stored: rows of `channels` bytes a pixel, 1 or 3.
    [[nodiscard]] bool decode(int channels, std::uint8_t* out);
    [[nodiscard]] std::int64_t height() const { return height_; }
    [[nodiscard]] std::int64_t width() const { return width_; }
    // eXIf may also stand behind the pixels: bytes that end before give upright.
    [[nodiscard]] Orientation orientation() const;
    [[nodiscard]] std::string message() const { return message_.data(); }

  private:
    static void leave(png_structp png, png_const_charp message);
    static void read(png_structp png, png_bytep out, std::size_t size);
    [[nodiscard]] bool start();
    void write_row(const std::uint8_t* row, int channels, std::uint8_t* out) const;

    std::string_view bytes_;
    std::size_t at_ = 0;
    png_structp png_ = nullptr;
    png_infop info_ = nullptr;
    std::int64_t height_ = 0;
    std::int64_t width_ = 0;
    int stored_channels_ = 0;  // grey, grey and alpha, colour, colour and alpha
    int passes_ = 1;
    std::vector<std::uint8_t> rows_;
    std::array<char, 128> message_{};
};

}  // namespace ecopipe
