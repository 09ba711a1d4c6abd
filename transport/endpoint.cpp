#include "transport/endpoint.h"

#include <fmt/format.h>

#include <charconv>

#include "core/log.h"

namespace ecopipe {

std::string Endpoint::text() const { return fmt::format("tcp://{}:{}", host, port); }

bool Endpoint::loopback() const {
    // A name may begin so, too: 127.example.org is anybody's.
    return host == "localhost" || host == "[::1]" ||
           (host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string::npos);
}

Result<Endpoint> parse_endpoint(const std::string& text, const std::string& flag) {
    constexpr std::string_view kScheme = "tcp://";
    const std::size_t colon = text.rfind(':');
    Endpoint endpoint;
    if (text.starts_with(kScheme) && colon > kScheme.size() && colon != std::string::npos) {
        endpoint.host = text.substr(kScheme.size(), colon - kScheme.size());
        const char* begin = text.data() + colon + 1;
        const char* end = text.data() + text.size();
        const auto [stop, error] = std::from_chars(begin, end, endpoint.port);
        if (error == std::errc() && stop == end && begin != end &&
            endpoint.host.find_first_of(" \t/") == std::string::npos)
            return endpoint;
    }
    return fail(ExitCode::kUsage,
                fmt::format("{}: expected tcp://ADDRESS:PORT, found '{}'", flag, printable(text)));
}

}  // namespace ecopipe
