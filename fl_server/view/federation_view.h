#pragma once
// What a person or a page sees of a federation: plain values, made anew each time, shared between
// threads as constants.

#include <cstdint>
#include <string>
#include <vector>

namespace ecopipe {

struct SiteView {
    std::string cluster;
    bool connected = false;
    double last_seen_s = 0;  // ago
    int group = -1;          // -1: the drop-out group
    double latency_s = 0;
    std::uint64_t samples = 0;
    std::vector<std::uint64_t> label_counts;
    std::uint64_t task = 0;  // at work on, 0: none
    std::uint64_t base_version = 0;
    std::uint64_t staleness = 0;  // of its last update
    std::uint64_t updates = 0;    // admitted since the server started
    std::uint64_t rejections = 0;
    bool quarantined = false;
    bool degraded = false;
    std::string reason;  // of the last rejection
};

struct RoundView {
    std::uint64_t round = 0;
    double wall_s = 0;
    std::uint32_t group = 0;
    std::size_t clusters = 0;
    std::uint64_t samples = 0;
    double accuracy = -1;  // -1: not known
    double loss = -1;
    std::size_t rejected = 0;
};

struct FederationView {
    std::string strategy;
    std::string phase;  // running, paused, finishing, finished, disk full
    std::uint64_t version = 0;
    std::uint64_t rounds = 0;  // wanted; 0: no end
    double clock_s = 0;        // running time of the federation, restarts left out
    double best_score = -1;
    std::uint64_t best_version = 0;
    std::uint64_t uploads = 0;       // under way
    std::uint64_t bytes_in = 0;      // of updates, since the server started
    std::uint64_t bytes_out = 0;     // of models
    std::uint64_t credit_bytes = 0;  // under way, of credit_bytes_max
    std::uint64_t credit_bytes_max = 0;
    std::uint64_t free_bytes = 0;   // of disk
    std::vector<SiteView> sites;    // by name
    std::vector<RoundView> recent;  // the last ones, oldest first
};

}  // namespace ecopipe
