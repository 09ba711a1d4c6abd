#pragma once
// A JPEG file in memory, by libjpeg. Methods give false when the file is damaged; message() then
// says why. libjpeg leaves through longjmp on any error or warning: every method that calls it sets
// the jump anew and has no local with a destructor.

// clang-format off: jpeglib.h needs stdio's types before it.
#include <cstdio>
#include <jpeglib.h>
// clang-format on

#include <array>
#include <csetjmp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stage_runtime/data/exif.h"

namespace ecopipe {

class JpegReader {
  public:
    static constexpr const char* kFormat = "JPEG";

    explicit JpegReader(std::string_view bytes);
    JpegReader(const JpegReader&) = delete;
    JpegReader& operator=(const JpegReader&) = delete;
    ~JpegReader();

    [[nodiscard]] bool read_header();
    // As stored: rows of `channels` bytes a pixel, 1 or 3.
    [[nodiscard]] bool decode(int channels, std::uint8_t* out);
    [[nodiscard]] std::int64_t height() const { return info_.image_height; }
    [[nodiscard]] std::int64_t width() const { return info_.image_width; }
    [[nodiscard]] Orientation orientation() const;
    [[nodiscard]] std::string message() const { return errors_.message.data(); }

  private:
    struct Errors {
        jpeg_error_mgr base;  // first: libjpeg knows this part alone
        std::jmp_buf jump;
        std::array<char, JMSG_LENGTH_MAX> message;
    };
    static void leave(j_common_ptr info);
    static void watch(j_common_ptr info);
    void write_grey(std::uint8_t* out) const;
    void write_inks(int channels, std::uint8_t* out) const;

    std::string_view bytes_;
    jpeg_decompress_struct info_{};
    jpeg_progress_mgr monitor_{};
    Errors errors_{};
    std::vector<std::uint8_t> row_;  // colours to become grey, or cyan, magenta, yellow and black
    bool created_ = false;
};

}  // namespace ecopipe
