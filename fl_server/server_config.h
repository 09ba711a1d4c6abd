#pragma once
// server.yaml: what an operator sets for a federation besides the flags.

#include <string>
#include <vector>

#include "core/result.h"
#include "transport/federation_messages.h"

namespace ecopipe {

struct ServerConfig {
    std::vector<KeyValue>
        client;  // `client:` epochs, batch, micro_batches, optimizer, lr, momentum, weight_decay
};

[[nodiscard]] Result<ServerConfig> parse_server_config(std::string_view text,
                                                       const std::string& source);

}  // namespace ecopipe
