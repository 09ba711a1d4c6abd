#pragma once
// The federation's server: the adapter of a Federation to sockets, signals and the operator's
// commands. Torch-free.

#include <memory>
#include <string>

#include "core/result.h"
#include "fl_server/service/federation.h"
#include "transport/security/endpoint.h"
#include "transport/security/key_ring.h"

namespace ecopipe {

struct ServerOptions {
    Endpoint bind;
    std::shared_ptr<KeyRing> keys;    // null: without
    std::optional<Endpoint> metrics;  // where the Prometheus text is served; none: nowhere
    std::optional<Endpoint> web;      // where the page is served; none: nowhere
    std::string title;                // of the page
    FederationOptions federation;
    std::string model_id;  // as clusters must name it
    std::unique_ptr<Strategy> strategy;
    double peer_timeout_s = 10;
};

// Runs until the rounds are done, the operator finishes it, or a signal comes; then tells every
// cluster. `layout` and `initial` as in Federation::open. Errors: that one's; kUnreachable when an
// address cannot be bound; kRunFailed when a file cannot be written.
[[nodiscard]] Result<ExitCode> run_server(ServerOptions options, const ModelLayout& layout,
                                          std::string initial);

}  // namespace ecopipe
