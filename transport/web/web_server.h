#pragma once
// A small HTTP server for people: a few pages that are only read, on a thread of its own. It trusts
// nobody: GET alone, bounded connections, headers and times, and only requests that name this
// machine by an address (a web site whose name is pointed here, DNS rebinding, gets nothing).

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "core/result.h"
#include "transport/security/endpoint.h"

namespace ecopipe {

struct WebRoute {
    std::string content_type;
    std::string content_security_policy;
    // Called on the server's thread, and only when `tag` has changed since the last time.
    std::function<std::string()> body;
    // What the body depends on; a client that has it already is told so (304).
    std::function<std::string()> tag;
};

struct WebLimits {
    std::size_t connections = 16;  // beyond, the one that has been silent for longest is closed
    std::chrono::milliseconds request{5000};  // to send a whole request, waiting included
    std::chrono::milliseconds reply{10000};   // to take the whole reply
    std::size_t header_bytes = 8192;
};

// ADDRESS:PORT of --web; port 0 takes any free one. Errors: kUsage; also for another address than
// loopback without `insecure`, since pages are neither encrypted nor protected by a password.
[[nodiscard]] Result<Endpoint> parse_web_address(const std::string& text, bool insecure);

class WebServer {
  public:
    // `routes` by path ("/"). Errors: kUnreachable when the address cannot be bound.
    [[nodiscard]] static Result<std::unique_ptr<WebServer>> start(
        const Endpoint& bind, std::map<std::string, WebRoute> routes, WebLimits limits = {});
    virtual ~WebServer() = default;  // closes every connection and ends the thread
    [[nodiscard]] virtual const Endpoint& bound() const = 0;  // with the port really taken
    [[nodiscard]] std::string url() const;

  protected:
    WebServer() = default;
};

// Whether a Host header names this machine by an address: an IP literal, localhost, or `bound`.
[[nodiscard]] bool host_header_allowed(const std::string& header, const std::string& bound);

}  // namespace ecopipe
