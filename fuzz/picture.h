#pragma once
// What both picture formats must bear: any bytes give a picture of the size that its header said,
// or one line.

#include "fuzz/target.h"
#include "stage_runtime/data/picture.h"

namespace ecopipe::fuzz {

inline void decode_any_picture(std::string_view bytes) {
    // The bound of a real picture would leave the fuzzer decoding blank ones.
    constexpr std::int64_t kPixelsMax = 1 << 18;
    const auto one_line = [](const Error& error) {
        ECOPIPE_CHECK(error.message.starts_with("fuzz: ") &&
                      error.message.find('\n') == std::string::npos);
    };
    const auto size = picture_size(bytes, "fuzz");
    if (!size) return one_line(size.error());
    ECOPIPE_CHECK(size->height > 0 && size->width > 0);
    if (std::int64_t{size->height} * size->width > kPixelsMax) return;
    for (const int channels : {1, 3}) {
        const auto picture = decode_picture(bytes, channels, "fuzz");
        if (!picture) {
            one_line(picture.error());
            continue;
        }
        ECOPIPE_CHECK(picture->size.height == size->height && picture->size.width == size->width);
        ECOPIPE_CHECK(picture->pixels.size() == static_cast<std::size_t>(size->height) *
                                                    static_cast<std::size_t>(size->width) *
                                                    static_cast<std::size_t>(channels));
    }
}

}  // namespace ecopipe::fuzz
