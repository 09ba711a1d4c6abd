#include "stage_runtime/data/picture.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "core/log.h"
#include "stage_runtime/data/exif.h"
#include "stage_runtime/data/jpeg_reader.h"
#include "stage_runtime/data/png_reader.h"

namespace ecopipe {
namespace {

bool is_jpeg(std::string_view bytes) { return bytes.starts_with("\xFF\xD8\xFF"); }
bool is_png(std::string_view bytes) { return bytes.starts_with("\x89PNG\r\n\x1A\n"); }

template <class Reader>
tl::unexpected<Error> damaged(const Reader& reader, const std::string& path) {
    return fail(ExitCode::kBadFile, fmt::format("{}: the {} file is damaged: {}", path,
                                                Reader::kFormat, printable(reader.message())));
}

PictureSize upright(PictureSize stored, Orientation orientation) {
    if (exchanges_sides(orientation)) std::swap(stored.height, stored.width);
    return stored;
}

// The size as stored.
template <class Reader>
Result<PictureSize> header_of(Reader& reader, const std::string& path) {
    if (!reader.read_header()) return damaged(reader, path);
    if (reader.height() < 1 || reader.width() < 1 ||
        reader.height() > kPicturePixelsMax / reader.width())
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: expected at most {} pixels, found {}x{}", path,
                                kPicturePixelsMax, reader.height(), reader.width()));
    return PictureSize{static_cast<int>(reader.height()), static_cast<int>(reader.width())};
}

// Walks the upright picture and takes each pixel from where it is stored.
void turn(Picture& picture, Orientation orientation) {
    if (orientation == Orientation::kUpright) return;
    const std::vector<std::uint8_t> stored = std::move(picture.pixels);
    const auto height = static_cast<std::ptrdiff_t>(picture.size.height);
    const auto width = static_cast<std::ptrdiff_t>(picture.size.width);
    const auto channels = static_cast<std::size_t>(picture.channels);
    const int value = static_cast<int>(orientation);
    const bool from_bottom = value == 3 || value == 4 || value == 6 || value == 7;
    const bool from_right = value == 2 || value == 3 || value == 7 || value == 8;
    std::ptrdiff_t step_y = from_bottom ? -width : width;
    std::ptrdiff_t step_x = from_right ? -1 : 1;
    const std::ptrdiff_t first =
        (from_bottom ? (height - 1) * width : 0) + (from_right ? width - 1 : 0);
    if (exchanges_sides(orientation)) std::swap(step_y, step_x);
    picture.size = upright(picture.size, orientation);
    picture.pixels.resize(stored.size());
    std::uint8_t* out = picture.pixels.data();
    for (int y = 0; y < picture.size.height; ++y)
        for (int x = 0; x < picture.size.width; ++x, out += channels)
            std::memcpy(out,
                        stored.data() +
                            static_cast<std::size_t>(first + y * step_y + x * step_x) * channels,
                        channels);
}

template <class Reader>
Result<PictureSize> size_by(std::string_view bytes, const std::string& path) {
    Reader reader(bytes);
    ECOPIPE_ASSIGN_OR_RETURN(const PictureSize stored, header_of(reader, path));
    return upright(stored, reader.orientation());
}

template <class Reader>
Result<Picture> decode_by(std::string_view bytes, int channels, const std::string& path) {
    Reader reader(bytes);
    Picture picture;
    ECOPIPE_ASSIGN_OR_RETURN(picture.size, header_of(reader, path));
    picture.channels = channels;
    picture.pixels.resize(static_cast<std::size_t>(picture.size.height) *
                          static_cast<std::size_t>(picture.size.width) *
                          static_cast<std::size_t>(channels));
    const Orientation orientation = reader.orientation();  // libjpeg forgets it with the pixels
    if (!reader.decode(channels, picture.pixels.data())) return damaged(reader, path);
    turn(picture, orientation);
    return picture;
}

tl::unexpected<Error> neither(const std::string& path) {
    return fail(ExitCode::kBadFile, path + ": expected a JPEG or PNG file, found neither");
}

}  // namespace

Result<PictureSize> picture_size(std::string_view bytes, const std::string& path) {
    if (is_jpeg(bytes)) return size_by<JpegReader>(bytes, path);
    if (is_png(bytes)) return size_by<PngReader>(bytes, path);
    return neither(path);
}

Result<Picture> decode_picture(std::string_view bytes, int channels, const std::string& path) {
    if (is_jpeg(bytes)) return decode_by<JpegReader>(bytes, channels, path);
    if (is_png(bytes)) return decode_by<PngReader>(bytes, channels, path);
    return neither(path);
}

}  // namespace ecopipe
