#pragma once
// The work of one device: joins a portal, runs what it is told, emulating a slower device and link
// when asked to.

#include <map>
#include <string>

#include "core/result.h"
#include "transport/net/link_shaper.h"
#include "transport/security/endpoint.h"
#include "transport/security/security.h"

namespace ecopipe {

struct WorkerOptions {
    Endpoint portal;
    std::string portal_name;  // whose key the portal's is, with keys
    Security security;
    std::string device;
    int threads = 1;
    std::string models_directory = ".";   // where TorchScript files may be loaded from
    std::string data_bind = "localhost";  // where to listen; "*": everywhere
    std::string
        data_address;  // what peers are told to dial; "" leaves it to the portal's knowledge
    int data_port = 0;
    std::string memory_budget;        // a file with what its tensors may take, MiB; "": none
    bool stay = false;                // serve run after run
    bool wait_when_orphaned = false;  // join again when the portal is lost, instead of ending
    double join_timeout_s = 600;
    double slowdown = 1;  // sleep this many times the CPU time of each action, less once
    EmulatedLink link;    // of every channel
    std::map<std::string, EmulatedLink> links;  // of the channel with one device
};

// Serves one run (or, with `stay`, runs until a signal). The result is how the run ended for this
// stage. Uses the calling thread for compute. Errors: kUnreachable, kMismatch, or the run's own.
[[nodiscard]] Result<ExitCode> run_worker(const WorkerOptions& options);

}  // namespace ecopipe
