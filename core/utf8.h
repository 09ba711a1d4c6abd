#pragma once
// Text that goes into JSON must be UTF-8: the JSON library throws on anything else.

#include <string_view>

namespace ecopipe {

// Well-formed as RFC 3629 has it: shortest forms, no surrogates, nothing above U+10FFFF.
[[nodiscard]] bool is_utf8(std::string_view text);

}  // namespace ecopipe
