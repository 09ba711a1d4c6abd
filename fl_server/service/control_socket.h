#pragma once
// How an operator reaches a running server: a Unix socket STATE/control.sock, one line of text in,
// one line of JSON out; and, for Prometheus, HTTP on a TCP port. A thread of its own; commands are
// handed to the server's thread, the rest is answered from the newest view.

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/result.h"
#include "fl_server/view/federation_view.h"
#include "transport/security/endpoint.h"

namespace ecopipe {

class ControlSocket {
  public:
    // Runs one command and returns its answer as JSON text; called on the socket's thread, may
    // wait.
    using Command = std::function<std::string(const std::string& line)>;
    // Errors: kUnreachable.
    [[nodiscard]] static Result<std::unique_ptr<ControlSocket>> open(
        const std::string& path, const std::optional<Endpoint>& metrics, Command command);
    ~ControlSocket();
    ControlSocket(const ControlSocket&) = delete;
    ControlSocket& operator=(const ControlSocket&) = delete;

    void publish(std::shared_ptr<const FederationView> view);  // any thread
    [[nodiscard]] std::uint16_t metrics_port() const;

  private:
    struct Impl;
    explicit ControlSocket(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

// The other end: sends one line, returns the answer. Errors: kUnreachable when nobody listens or
// answers within `timeout_s`.
[[nodiscard]] Result<std::string> ask_server(const std::string& path, const std::string& line,
                                             double timeout_s);

}  // namespace ecopipe
