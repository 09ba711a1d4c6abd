#include "transport/web/web_page.h"

#include <fmt/format.h>

#include <array>

#include "core/check.h"
#include "core/files.h"

namespace ecopipe {
namespace {

std::string base64(const std::string& bytes) {
    constexpr std::string_view kDigits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        std::uint32_t group = 0;
        for (std::size_t j = 0; j < 3; ++j)
            group =
                group << 8 | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0U);
        for (std::size_t digit = 0; digit < 4; ++digit)
            out += i + digit > bytes.size() ? '=' : kDigits[group >> (18 - 6 * digit) & 63U];
    }
    return out;
}

// What stands between the first `<tag>` and its end, as the browser hashes it.
std::string hash_source(std::string_view html, std::string_view tag) {
    const std::string open = fmt::format("<{}>", tag);
    const std::size_t begin = html.find(open);
    const std::size_t end = html.find(fmt::format("</{}>", tag));
    ECOPIPE_CHECK(begin != std::string_view::npos && end != std::string_view::npos);
    const std::size_t from = begin + open.size();
    const std::string hex = sha256_hex(html.substr(from, end - from));
    std::string bytes;
    for (std::size_t i = 0; i < hex.size(); i += 2)
        bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    return fmt::format("'sha256-{}'", base64(bytes));
}

}  // namespace

std::string content_security_policy(std::string_view html) {
    return fmt::format(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash_source(html, "script"), hash_source(html, "style"));
}

std::map<std::string, WebRoute> web_page_routes(std::function<std::string()> document,
                                                std::function<std::string()> revision) {
    const std::string html(web_page_html());
    const std::string tag = sha256_hex(html).substr(0, 16);
    return {{"/",
             {"text/html; charset=utf-8", content_security_policy(html), [html] { return html; },
              [tag] { return tag; }}},
            {"/view.json",
             {"application/json", "default-src 'none'", std::move(document), std::move(revision)}}};
}

}  // namespace ecopipe
