#pragma once
// tcp://host:port addresses, and which of them count as this machine alone.

#include <cstdint>
#include <string>

#include "core/result.h"

namespace ecopipe {

struct Endpoint {
    std::string host;
    std::uint16_t port = 0;  // 0: any free one, for binding
    [[nodiscard]] std::string text() const;
    [[nodiscard]] bool loopback() const;
};

// Refuses anything but tcp://HOST:PORT; `flag` names the option in the refusal (exit code 2).
[[nodiscard]] Result<Endpoint> parse_endpoint(const std::string& text, const std::string& flag);

}  // namespace ecopipe
