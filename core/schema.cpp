#include "core/schema.h"

#include <fmt/format.h>

#include <charconv>

namespace ecopipe {

Result<void> check_schema(const Json& json, std::string_view name, int number,
                          const std::string& source) {
    const std::string expected = fmt::format("{}/{}", name, number);
    if (!json.is_object())
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: expected an object, found {}", source, shown(json)));
    const auto found = json.find("schema");
    if (found == json.end())
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: schema: expected \"{}\", found nothing", source, expected));
    if (*found == expected) return {};
    const std::string problem =
        fmt::format("{}: schema: expected \"{}\", found {}", source, expected, shown(*found));
    if (!found->is_string()) return fail(ExitCode::kBadFile, problem);
    const auto& text = found->get_ref<const std::string&>();
    const std::string prefix = fmt::format("{}/", name);
    int version = 0;
    const char* end = text.data() + text.size();
    if (!text.starts_with(prefix)) return fail(ExitCode::kBadFile, problem);
    const auto [stop, error] = std::from_chars(text.data() + prefix.size(), end, version);
    const bool numbered = error == std::errc() && stop == end;
    return fail(numbered ? ExitCode::kMismatch : ExitCode::kBadFile, problem);
}

}  // namespace ecopipe
