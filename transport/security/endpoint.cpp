#include "transport/security/endpoint.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <netdb.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <memory>
#include <optional>

#include "core/log.h"

namespace ecopipe {
namespace {

constexpr const char* kLocalhost = "localhost";
constexpr unsigned kLoopbackNetwork = 127;

// Without a zone, which names an interface of this machine.
std::optional<in6_addr> as_ipv6(const std::string& host) {
    in6_addr address{};
    if (::inet_pton(AF_INET6, host.substr(0, host.find('%')).c_str(), &address) == 1)
        return address;
    return std::nullopt;
}

// Short forms (127.1) too, which resolvers take for addresses.
std::optional<in_addr> as_ipv4(const std::string& host) {
    in_addr address{};
    if (host.find_first_not_of("0123456789.") == std::string::npos &&
        ::inet_aton(host.c_str(), &address) != 0)
        return address;
    return std::nullopt;
}

bool is_host(const std::string& host) {
    if (host.find(':') != std::string::npos) return as_ipv6(host).has_value();
    return !host.empty() && host.find_first_of(" \t\r\n/[]@") == std::string::npos;
}

void add_address(const sockaddr& address, std::vector<std::string>& addresses) {
    const bool ipv6 = address.sa_family == AF_INET6;
    if (!ipv6 && address.sa_family != AF_INET) return;
    std::array<char, NI_MAXHOST> text{};
    if (::getnameinfo(&address, ipv6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in), text.data(),
                      text.size(), nullptr, 0, NI_NUMERICHOST) == 0 &&
        std::find(addresses.begin(), addresses.end(), text.data()) == addresses.end())
        addresses.emplace_back(text.data());
}

std::vector<std::string> addresses_of_interface(const std::string& name) {
    ifaddrs* all = nullptr;
    if (::getifaddrs(&all) != 0) return {};
    const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(all, ::freeifaddrs);
    std::vector<std::string> addresses;
    for (const ifaddrs* at = all; at != nullptr; at = at->ifa_next)
        if (at->ifa_addr != nullptr && name == at->ifa_name) add_address(*at->ifa_addr, addresses);
    return addresses;
}

std::string bracketed(const std::string& host) { return as_ipv6(host) ? "[" + host + "]" : host; }

}  // namespace

std::string Endpoint::text() const { return "tcp://" + place(); }

std::string Endpoint::place() const { return fmt::format("{}:{}", bracketed(host), port); }

bool Endpoint::loopback() const {
    if (host == kLocalhost) return true;
    if (const auto ipv4 = as_ipv4(host)) return ntohl(ipv4->s_addr) >> 24 == kLoopbackNetwork;
    const auto ipv6 = as_ipv6(host);
    if (!ipv6) return false;  // a name may begin with 127., too
    return IN6_IS_ADDR_LOOPBACK(&*ipv6) ||
           (IN6_IS_ADDR_V4MAPPED(&*ipv6) && ipv6->s6_addr[12] == kLoopbackNetwork);
}

bool Endpoint::named() const { return host != "*" && !as_ipv4(host) && !as_ipv6(host); }

Result<std::string> parse_host(const std::string& text, const std::string& flag) {
    const bool brackets = text.size() > 2 && text.front() == '[' && text.back() == ']';
    std::string host = brackets ? text.substr(1, text.size() - 2) : text;
    if (brackets ? as_ipv6(host).has_value() : is_host(host)) return host;
    return fail(ExitCode::kUsage, fmt::format("{}: expected a host's name or address, found '{}'",
                                              flag, printable(text)));
}

Result<Endpoint> parse_endpoint(const std::string& text, const std::string& flag) {
    constexpr std::string_view kScheme = "tcp://";
    const std::size_t colon = text.rfind(':');
    if (text.starts_with(kScheme) && colon > kScheme.size() && colon != std::string::npos) {
        const std::string place = text.substr(kScheme.size(), colon - kScheme.size());
        const auto host = parse_host(place, flag);
        // Without brackets nobody could tell where the address ends.
        const bool ambiguous = place.front() != '[' && place.find(':') != std::string::npos;
        Endpoint endpoint{host.value_or(""), 0};
        const char* begin = text.data() + colon + 1;
        const char* end = text.data() + text.size();
        const auto [stop, error] = std::from_chars(begin, end, endpoint.port);
        if (host && !ambiguous && error == std::errc() && stop == end && begin != end)
            return endpoint;
    }
    return fail(ExitCode::kUsage,
                fmt::format("{}: expected tcp://ADDRESS:PORT, found '{}'", flag, printable(text)));
}

Result<std::vector<std::string>> listen_addresses(const std::string& host) {
    if (host == kLocalhost) return std::vector<std::string>{"127.0.0.1", "::1"};
    if (!Endpoint{host, 0}.named()) return std::vector<std::string>{host};
    auto addresses = addresses_of_interface(host);
    if (!addresses.empty()) return addresses;
    addrinfo wanted{};
    wanted.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const int error = ::getaddrinfo(host.c_str(), nullptr, &wanted, &found);
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, ::freeaddrinfo);
    for (const addrinfo* at = found; error == 0 && at != nullptr; at = at->ai_next)
        add_address(*at->ai_addr, addresses);
    if (addresses.empty())
        return fail(ExitCode::kUnreachable,
                    fmt::format("{}: expected a name that has an address: {}", printable(host),
                                error != 0 ? ::gai_strerror(error) : "it has none"));
    return addresses;
}

}  // namespace ecopipe
