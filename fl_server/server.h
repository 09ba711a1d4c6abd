#pragma once
// The federation's server: the adapter of RoundMachine, admission and strategy to sockets and
// files.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"
#include "fl_server/round_machine.h"
#include "stage_runtime/data/dataset.h"
#include "stage_runtime/model/model_spec.h"
#include "transport/endpoint.h"
#include "transport/federation_messages.h"
#include "transport/key_ring.h"

namespace ecopipe {

struct ServerOptions {
    Endpoint bind;
    std::shared_ptr<KeyRing> keys;  // null: without
    std::string state_directory;
    std::string strategy = "fedavg";
    RoundRules rules;
    std::vector<KeyValue> client;  // the configuration that every task carries
    ModelSpec model;
    ModelInfo info;
    TensorMap weights;                   // that the federation starts from
    std::unique_ptr<Dataset> eval_data;  // null: no evaluation on the server
    double peer_timeout_s = 10;
};

// Runs until the rounds are done or a signal comes; then tells every cluster. Writes
// model.safetensors and one line of rounds.jsonl a round into the state directory. Errors:
// kUnreachable when the address cannot be bound, kUsage for a state directory in use, kRunFailed
// when a file cannot be written.
[[nodiscard]] Result<ExitCode> run_server(ServerOptions options);

}  // namespace ecopipe
