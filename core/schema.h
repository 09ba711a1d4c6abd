#pragma once
// The "schema" key of the planner's files: a name, a slash and a number.

#include <string>
#include <string_view>

#include "core/strict_json.h"

namespace ecopipe {

// Before version 1.0 any number but the current one is refused as a version mismatch (exit code 5);
// another name is a bad file. Checked before the rest of the text, so that a newer file is not
// reported as one with unknown keys.
[[nodiscard]] Result<void> check_schema(const Json& json, std::string_view name, int number,
                                        const std::string& source);

}  // namespace ecopipe
