#include "stage_runtime/data/png_reader.h"

#include <zlib.h>

#include <cstdio>
#include <cstring>

#include "stage_runtime/data/grey.h"

namespace ecopipe {
namespace {

constexpr std::size_t kSignatureBytes = 8;

std::size_t big_endian(std::string_view bytes) {
    std::size_t value = 0;
    for (const char byte : bytes) value = value << 8 | static_cast<unsigned char>(byte);
    return value;
}

}  // namespace

PngReader::~PngReader() { ::png_destroy_read_struct(&png_, &info_, nullptr); }

void PngReader::leave(png_structp png, png_const_charp message) {
    auto* self = static_cast<PngReader*>(::png_get_error_ptr(png));
    std::snprintf(self->message_.data(), self->message_.size(), "%s", message);
    ::png_longjmp(png, 1);
}

void PngReader::read(png_structp png, png_bytep out, std::size_t size) {
    auto* self = static_cast<PngReader*>(::png_get_io_ptr(png));
    if (size > self->bytes_.size() - self->at_) leave(png, "it ends too early");
    std::memcpy(out, self->bytes_.data() + self->at_, size);
    self->at_ += size;
}

bool PngReader::read_header() {
    png_ = ::png_create_read_struct(PNG_LIBPNG_VER_STRING, this, leave,
                                    [](png_structp, png_const_charp) {});
    info_ = png_ == nullptr ? nullptr : ::png_create_info_struct(png_);
    if (info_ == nullptr) {
        std::snprintf(message_.data(), message_.size(), "libpng does not start");
        return false;
    }
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    ::png_set_read_fn(png_, this, read);
    ::png_set_benign_errors(png_, 1);
    // All that does not change the stored numbers is skipped: profiles, gamma, texts.
    ::png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
    ::png_read_info(png_, info_);
    height_ = ::png_get_image_height(png_, info_);
    width_ = ::png_get_image_width(png_, info_);
    return true;
}

Orientation PngReader::orientation() const {
    std::size_t at = kSignatureBytes;
    while (bytes_.size() >= at + 12) {
        const std::size_t size = big_endian(bytes_.substr(at, 4));
        if (size > bytes_.size() - at - 12) break;
        const std::string_view checked = bytes_.substr(at + 4, size + 4);
        if (checked.starts_with("eXIf") &&
            ::crc32(0, reinterpret_cast<const Bytef*>(checked.data()),
                    static_cast<uInt>(checked.size())) ==
                big_endian(bytes_.substr(at + 8 + size, 4)))
            return exif_orientation(checked.substr(4));
        at += size + 12;
    }
    return Orientation::kUpright;
}

bool PngReader::start() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    ::png_set_expand(png_);
    ::png_set_scale_16(png_);
    passes_ = ::png_set_interlace_handling(png_);
    ::png_read_update_info(png_, info_);
    stored_channels_ = ::png_get_channels(png_, info_);
    return true;
}

bool PngReader::decode(int channels, std::uint8_t* out) {
    if (!start()) return false;
    const auto height = static_cast<std::size_t>(height_);
    const std::size_t row_bytes =
        static_cast<std::size_t>(width_) * static_cast<std::size_t>(stored_channels_);
    const std::size_t out_bytes =
        static_cast<std::size_t>(width_) * static_cast<std::size_t>(channels);
    // Each pass of an interlaced picture fills in what those before it left open.
    rows_.resize(passes_ > 1 ? height * row_bytes : row_bytes);
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    for (int pass = 0; pass < passes_; ++pass)
        for (std::size_t y = 0; y < height; ++y) {
            std::uint8_t* row = rows_.data() + (passes_ > 1 ? y * row_bytes : 0);
            ::png_read_row(png_, row, nullptr);
            if (pass + 1 == passes_) write_row(row, channels, out + y * out_bytes);
        }
    return true;
}

void PngReader::write_row(const std::uint8_t* row, int channels, std::uint8_t* out) const {
    const auto stored = static_cast<std::size_t>(stored_channels_);
    const bool colour = stored >= 3;
    const bool transparent = stored % 2 == 0;
    for (std::int64_t x = 0; x < width_; ++x, row += stored) {
        const unsigned alpha = transparent ? row[stored - 1] : 255U;
        const auto over_black = [&](std::size_t channel) {
            return product_of_bytes(row[colour ? channel : 0], alpha);
        };
        out = put_pixel(out, channels, over_black(0), over_black(1), over_black(2));
    }
}

}  // namespace ecopipe
