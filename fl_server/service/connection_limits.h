#pragma once
// What `limits:` of server.yaml means for the connections of the server's port.

#include "fl_server/service/limits.h"
#include "transport/net/connection_table.h"

namespace ecopipe {

// As many connections as clusters, and some that have not said who they are.
[[nodiscard]] inline ConnectionLimits connection_limits(const ServerLimits& limits) {
    return {.connections = limits.clusters_max + limits.silent_connections,
            .per_address = limits.connections_per_address,
            .silent = limits.silent_connections,
            .burst = static_cast<double>(limits.connections_per_address),
            .per_second = static_cast<double>(limits.connections_per_s)};
}

}  // namespace ecopipe
