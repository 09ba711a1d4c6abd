#include "stage_runtime/data/exif.h"

#include <cstddef>
#include <cstdint>

namespace ecopipe {
namespace {

constexpr std::string_view kPrefix{"Exif\0\0", 6};
constexpr std::uint32_t kOrientationTag = 0x0112;
constexpr std::uint32_t kShort = 3;
constexpr std::uint32_t kLong = 4;
constexpr std::size_t kEntryBytes = 12;

// Numbers of either byte order; what lies outside reads as 0.
class Tiff {
  public:
    explicit Tiff(std::string_view bytes)
        : bytes_(bytes),
          little_(bytes.starts_with("II")),
          valid_(little_ || bytes.starts_with("MM")) {
        valid_ = valid_ && number(2, 2) == 42;
    }
    [[nodiscard]] bool valid() const { return valid_; }
    [[nodiscard]] std::uint32_t number(std::size_t at, std::size_t size) const {
        if (at > bytes_.size() || size > bytes_.size() - at) return 0;
        std::uint32_t value = 0;
        for (std::size_t i = 0; i < size; ++i) {
            const std::size_t from = little_ ? size - 1 - i : i;
            value = value << 8 | static_cast<unsigned char>(bytes_[at + from]);
        }
        return value;
    }

  private:
    std::string_view bytes_;
    bool little_;
    bool valid_;
};

}  // namespace

Orientation exif_orientation(std::string_view exif) {
    if (exif.starts_with(kPrefix)) exif.remove_prefix(kPrefix.size());
    const Tiff tiff(exif);
    if (!tiff.valid()) return Orientation::kUpright;
    const std::size_t directory = tiff.number(4, 4);
    const std::size_t entries = tiff.number(directory, 2);
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < entries; ++i) {
        const std::size_t at = directory + 2 + i * kEntryBytes;
        if (tiff.number(at, 2) != kOrientationTag || tiff.number(at + 4, 4) != 1) continue;
        const std::uint32_t type = tiff.number(at + 2, 2);
        value = type == kShort  ? tiff.number(at + 8, 2)
                : type == kLong ? tiff.number(at + 8, 4)
                                : 0;
    }
    return value >= 1 && value <= 8 ? static_cast<Orientation>(value) : Orientation::kUpright;
}

}  // namespace ecopipe
