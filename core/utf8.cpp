#include "core/utf8.h"

#include <cstddef>
#include <cstdint>

namespace ecopipe {

bool is_utf8(std::string_view text) {
    std::size_t at = 0;
    while (at < text.size()) {
        const auto first = static_cast<unsigned char>(text[at++]);
        if (first < 0x80) continue;
        const int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
        if (first < 0xC2 || first > 0xF4 || text.size() - at < static_cast<std::size_t>(more))
            return false;
        std::uint32_t code = first & (0x3FU >> more);
        for (int i = 0; i < more; ++i) {
            const auto byte = static_cast<unsigned char>(text[at++]);
            if ((byte & 0xC0) != 0x80) return false;
            code = (code << 6) | (byte & 0x3FU);
        }
        if ((more == 2 && code < 0x800) || (more == 3 && code < 0x10000) || code > 0x10FFFF ||
            (code >= 0xD800 && code <= 0xDFFF))
            return false;
    }
    return true;
}

}  // namespace ecopipe
