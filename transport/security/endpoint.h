#pragma once
// tcp://host:port addresses, and which of them count as this machine alone.

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"

namespace ecopipe {

struct Endpoint {
    std::string host;        // a name, an IPv4 address, or an IPv6 address without its brackets
    std::uint16_t port = 0;  // 0: any free one, for binding
    [[nodiscard]] std::string text() const;   // tcp://host:port, with brackets where due
    [[nodiscard]] std::string place() const;  // host:port, likewise
    [[nodiscard]] bool loopback() const;      // 127.0.0.0/8, ::1, localhost
    [[nodiscard]] bool named() const;         // the host is no address, but has some
};

// Refuses anything but tcp://HOST:PORT, IPv6 addresses in brackets; `flag` names the option in the
// refusal (exit code 2).
[[nodiscard]] Result<Endpoint> parse_endpoint(const std::string& text, const std::string& flag);
// A host as flags and files have it, IPv6 addresses with or without brackets. Errors: kUsage.
[[nodiscard]] Result<std::string> parse_host(const std::string& text, const std::string& flag);

// The addresses to listen on for a host: those of a name or of an interface; an address and "*" are
// themselves. localhost is loopback of both kinds, whatever the resolver says. May wait for the
// resolver. Errors: kUnreachable for a name that has none.
[[nodiscard]] Result<std::vector<std::string>> listen_addresses(const std::string& host);

}  // namespace ecopipe
