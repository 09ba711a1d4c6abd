#pragma once
// One JPEG or PNG file, decoded. Files are taken for hostile: whatever is in them gives a picture
// or one line, within bounded memory and time.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace ecopipe {

inline constexpr std::size_t kPictureFileBytesMax = 64U << 20;
inline constexpr std::int64_t kPicturePixelsMax = 64LL << 20;

struct PictureSize {
    int height = 0;
    int width = 0;
};

struct Picture {
    PictureSize size;
    int channels = 3;
    std::vector<std::uint8_t> pixels;  // [height, width, channels]
};

// The upright size (exif.h), from the header alone; `bytes` may end after it, but the orientation
// of a PNG may stand at its end. Errors: kBadFile naming `path`: neither JPEG nor PNG, damaged, or
// above kPicturePixelsMax.
[[nodiscard]] Result<PictureSize> picture_size(std::string_view bytes, const std::string& path);
// Upright, and the stored numbers (png_reader.h, grey.h). `channels`: 1 for grey, 3 for red, green,
// blue. A JPEG that is cut short or damaged is refused rather than filled up. Transparency lies
// over black. Errors: kBadFile, as above.
[[nodiscard]] Result<Picture> decode_picture(std::string_view bytes, int channels,
                                             const std::string& path);

// Writes the picture as [channels, height, width] floats in [0, 1], resized when `size` is another:
// bilinear with half-pixel centres, and averaging over the source's area when shrinking (a triangle
// filter, as Pillow's BILINEAR), without rounding to bytes.
void write_resized(const Picture& picture, PictureSize size, float* out);

}  // namespace ecopipe
