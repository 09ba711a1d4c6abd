#pragma once
// `limits:` of server.yaml: what the server bears from clusters, and how much memory and disk it
// may take.

#include <cstdint>

namespace ecopipe {

struct ServerLimits {
    double norm_clip = 100;  // L2 norm of an update's delta above which it is scaled down; 0: never
    double norm_max = 1e6;   // above which it is rejected
    double weight_max = 10;  // times the median of the clusters' samples: an update that would
                             // count for more is cut to it, from five clusters on; 0: any
    std::uint64_t samples_max = 10000000;  // that one update may count for
    std::uint64_t staleness_max = 0;       // versions; 0: any
    std::uint64_t quarantine_after = 3;    // rejections in a row; 0: never
    std::uint64_t absence_s = 3600;        // away for longer, a cluster loses its task; 0: never
    std::uint64_t clusters_max = 4096;     // connected at a time
    std::uint64_t connections_per_address = 256;  // clusters behind one router share an address
    std::uint64_t connections_per_s = 64;   // new ones of an address, after as many as it may have
    std::uint64_t silent_connections = 64;  // that have not said Hello yet
    std::uint64_t credit_mib = 64;       // model and update bytes under way, all clusters together
    std::uint64_t free_space_mib = 256;  // of disk, below which no update is taken
    std::uint64_t slices_max = 64;       // of one update
    std::uint64_t evaluation_timeout_s = 600;  // for ecopipe-fl-model to answer
};

}  // namespace ecopipe
