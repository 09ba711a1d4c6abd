#pragma once
// YAML as people write it, read as strictly as JSON: the text becomes a Json value for `Document`
// and `Fields`.

#include "core/strict_json.h"

namespace ecopipe {

// Plain scalars follow the YAML 1.2 core schema (null, true/false, integers, floats, else text);
// quoted ones are text. Refused, with the line: duplicate keys, anchors and aliases, tags, more
// than one document, nesting deeper than kConfigDepthMax, texts above kConfigBytesMax.
[[nodiscard]] Result<Json> parse_yaml(std::string_view text, const std::string& source);

}  // namespace ecopipe
