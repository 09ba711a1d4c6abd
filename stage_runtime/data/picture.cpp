#include "stage_runtime/data/picture.h"

#include <fmt/format.h>
// jpeglib.h needs stdio's types before it.
#include <jpeglib.h>
#include <png.h>

#include <array>
#include <csetjmp>
#include <cstdio>

#include "core/log.h"

namespace ecopipe {
namespace {

constexpr int kScansMax = 200;  // a progressive file of few bytes may ask for thousands
constexpr long kJpegMemoryMax = 1L << 30;

bool is_jpeg(std::string_view bytes) { return bytes.starts_with("\xFF\xD8\xFF"); }
bool is_png(std::string_view bytes) { return bytes.starts_with("\x89PNG\r\n\x1A\n"); }

// libjpeg leaves through longjmp on any error or warning. Every method that calls it sets the jump
// anew and has no local with a destructor.
class JpegReader {
  public:
    explicit JpegReader(std::string_view bytes) : bytes_(bytes) {
        info_.err = ::jpeg_std_error(&errors_.base);
        errors_.base.error_exit = leave;
        errors_.base.emit_message = [](j_common_ptr info, int level) {
            if (level < 0) leave(info);
        };
        errors_.base.output_message = [](j_common_ptr) {};
    }
    JpegReader(const JpegReader&) = delete;
    JpegReader& operator=(const JpegReader&) = delete;
    ~JpegReader() {
        if (created_) ::jpeg_destroy_decompress(&info_);
    }

    [[nodiscard]] bool read_header() {
        if (setjmp(errors_.jump) != 0) return false;
        ::jpeg_create_decompress(&info_);
        created_ = true;
        info_.mem->max_memory_to_use = kJpegMemoryMax;
        ::jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes_.data()),
                       static_cast<unsigned long>(bytes_.size()));
        ::jpeg_read_header(&info_, TRUE);
        return true;
    }
    [[nodiscard]] bool decode(int channels, std::uint8_t* out) {
        if (setjmp(errors_.jump) != 0) return false;
        monitor_.progress_monitor = [](j_common_ptr info) {
            auto* self = reinterpret_cast<j_decompress_ptr>(info);
            if (self->input_scan_number <= kScansMax) return;
            auto* errors = reinterpret_cast<Errors*>(info->err);
            std::snprintf(errors->message.data(), errors->message.size(),
                          "more than %d progressive scans", kScansMax);
            std::longjmp(errors->jump, 1);
        };
        info_.progress = &monitor_;
        info_.out_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
        info_.dct_method = JDCT_ISLOW;  // the same bits on every machine
        ::jpeg_start_decompress(&info_);
        while (info_.output_scanline < info_.output_height) {
            JSAMPROW row = out + static_cast<std::size_t>(info_.output_scanline) *
                                     info_.output_width * static_cast<std::size_t>(channels);
            ::jpeg_read_scanlines(&info_, &row, 1);
        }
        ::jpeg_finish_decompress(&info_);
        return true;
    }
    [[nodiscard]] std::int64_t height() const { return info_.image_height; }
    [[nodiscard]] std::int64_t width() const { return info_.image_width; }
    [[nodiscard]] std::string message() const { return errors_.message.data(); }

  private:
    struct Errors {
        jpeg_error_mgr base;  // first: libjpeg knows this part alone
        std::jmp_buf jump;
        std::array<char, JMSG_LENGTH_MAX> message;
    };
    static void leave(j_common_ptr info) {
        auto* errors = reinterpret_cast<Errors*>(info->err);
        errors->base.format_message(info, errors->message.data());
        std::longjmp(errors->jump, 1);
    }

    std::string_view bytes_;
    jpeg_decompress_struct info_{};
    jpeg_progress_mgr monitor_{};
    Errors errors_{};
    bool created_ = false;
};

class PngReader {
  public:
    explicit PngReader(std::string_view bytes) : bytes_(bytes) {
        image_.version = PNG_IMAGE_VERSION;
    }
    PngReader(const PngReader&) = delete;
    PngReader& operator=(const PngReader&) = delete;
    ~PngReader() { ::png_image_free(&image_); }

    [[nodiscard]] bool read_header() {
        return ::png_image_begin_read_from_memory(&image_, bytes_.data(), bytes_.size()) != 0;
    }
    [[nodiscard]] bool decode(int channels, std::uint8_t* out) {
        image_.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
        const png_color black{0, 0, 0};
        return ::png_image_finish_read(&image_, &black, out, 0, nullptr) != 0;
    }
    [[nodiscard]] std::int64_t height() const { return image_.height; }
    [[nodiscard]] std::int64_t width() const { return image_.width; }
    [[nodiscard]] std::string message() const { return image_.message; }

  private:
    std::string_view bytes_;
    png_image image_{};
};

template <class Reader>
tl::unexpected<Error> damaged(const Reader& reader, const char* format, const std::string& path) {
    return fail(ExitCode::kBadFile, fmt::format("{}: the {} file is damaged: {}", path, format,
                                                printable(reader.message())));
}

template <class Reader>
Result<PictureSize> header_of(Reader& reader, const char* format, const std::string& path) {
    if (!reader.read_header()) return damaged(reader, format, path);
    if (reader.height() < 1 || reader.width() < 1 ||
        reader.height() > kPicturePixelsMax / reader.width())
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: expected at most {} pixels, found {}x{}", path,
                                kPicturePixelsMax, reader.height(), reader.width()));
    return PictureSize{static_cast<int>(reader.height()), static_cast<int>(reader.width())};
}

template <class Reader>
Result<Picture> decode_with(Reader& reader, const char* format, int channels,
                            const std::string& path) {
    Picture picture;
    ECOPIPE_ASSIGN_OR_RETURN(picture.size, header_of(reader, format, path));
    picture.channels = channels;
    picture.pixels.resize(static_cast<std::size_t>(picture.size.height) *
                          static_cast<std::size_t>(picture.size.width) *
                          static_cast<std::size_t>(channels));
    if (!reader.decode(channels, picture.pixels.data())) return damaged(reader, format, path);
    return picture;
}

tl::unexpected<Error> neither(const std::string& path) {
    return fail(ExitCode::kBadFile, path + ": expected a JPEG or PNG file, found neither");
}

}  // namespace

Result<PictureSize> picture_size(std::string_view bytes, const std::string& path) {
    if (is_jpeg(bytes)) {
        JpegReader reader(bytes);
        return header_of(reader, "JPEG", path);
    }
    if (is_png(bytes)) {
        PngReader reader(bytes);
        return header_of(reader, "PNG", path);
    }
    return neither(path);
}

Result<Picture> decode_picture(std::string_view bytes, int channels, const std::string& path) {
    if (is_jpeg(bytes)) {
        JpegReader reader(bytes);
        return decode_with(reader, "JPEG", channels, path);
    }
    if (is_png(bytes)) {
        PngReader reader(bytes);
        return decode_with(reader, "PNG", channels, path);
    }
    return neither(path);
}

}  // namespace ecopipe
