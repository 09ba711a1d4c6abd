#pragma once
// How a picture is to be turned before it is looked at: the orientation that cameras write into
// EXIF, which JPEG (APP1) and PNG (eXIf) carry alike.

#include <string_view>

namespace ecopipe {

// EXIF's values, by where the stored picture's first row and first column lie in the upright one.
enum class Orientation {
    kUpright = 1,
    kMirrored = 2,
    kHalfTurn = 3,
    kFlipped = 4,
    kTransposed = 5,  // the last four exchange height and width
    kQuarterTurn = 6,
    kTransverse = 7,
    kThreeQuarterTurn = 8,
};

// `exif` is a TIFF structure, with or without the "Exif\0\0" before it. Whatever is damaged, cut
// short, of another type or out of range counts as upright, as other readers have it: the pixels
// are what matters.
[[nodiscard]] Orientation exif_orientation(std::string_view exif);

[[nodiscard]] inline bool exchanges_sides(Orientation orientation) {
    return orientation >= Orientation::kTransposed;
}

}  // namespace ecopipe
