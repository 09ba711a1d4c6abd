#pragma once
// Colour to grey on the stored numbers: no gamma, no linear light, no colour profile. Bit for bit
// what Pillow's convert("L") gives.

#include <cstdint>

namespace ecopipe {

// (299 R + 587 G + 114 B) / 1000, rounded, with weights of 16 bits.
[[nodiscard]] constexpr std::uint8_t grey_of(unsigned red, unsigned green, unsigned blue) {
    return static_cast<std::uint8_t>((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16);
}

// a * b / 255, rounded, of two bytes.
[[nodiscard]] constexpr std::uint8_t product_of_bytes(unsigned a, unsigned b) {
    return static_cast<std::uint8_t>((a * b * 2 + 255) / 510);
}

// Writes one pixel of `channels` (1 or 3) and gives the place of the next.
inline std::uint8_t* put_pixel(std::uint8_t* out, int channels, std::uint8_t red,
                               std::uint8_t green, std::uint8_t blue) {
    if (channels == 1) {
        *out = grey_of(red, green, blue);
        return out + 1;
    }
    out[0] = red;
    out[1] = green;
    out[2] = blue;
    return out + 3;
}

}  // namespace ecopipe
