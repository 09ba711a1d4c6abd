#include "core/glob.h"

#include <fnmatch.h>

#include <algorithm>

namespace ecopipe {

std::vector<std::string> split_patterns(const std::string& text) {
    std::vector<std::string> patterns;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(',', begin), text.size());
        if (end > begin) patterns.push_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    return patterns;
}

bool matches_any(const std::vector<std::string>& patterns, const std::string& name) {
    return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
        return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
    });
}

}  // namespace ecopipe
