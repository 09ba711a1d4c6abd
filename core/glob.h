#pragma once
// Names by pattern, as a shell matches file names: * any characters, ? one, [a-z] one of a set.

#include <string>
#include <vector>

namespace ecopipe {

// "features.*,classifier.1.*": patterns parted by commas; empty ones are dropped.
[[nodiscard]] std::vector<std::string> split_patterns(const std::string& text);
[[nodiscard]] bool matches_any(const std::vector<std::string>& patterns, const std::string& name);

}  // namespace ecopipe
