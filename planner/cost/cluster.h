#pragma once
// The devices and links of one cluster: a cluster.yaml.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/result.h"

namespace ecopipe {

struct Device {
    std::string name;
    double memory_mib = 0;
    double speed =
        1.0;  // relative to the first profile's device; meaningless with a profile of its own
    std::string profile;  // path as written; "" when the device has only a speed
    std::string host;     // user@address for ssh, "" for this machine
    std::string
        data_address;   // where other devices reach its data port, "" for the address it dials from
    int data_port = 0;  // 0: any
    int threads = 1;
};

struct Link {
    double mbps = 0;
    double latency_ms = 0;
    std::string medium;  // links of one medium take turns; "" for a link of its own
};

struct Cluster {
    std::string name;
    std::size_t portal = 0;  // index into devices
    std::string portal_address;
    int port = 5599;
    std::vector<Device> devices;
    Link default_link;
    std::map<std::pair<std::size_t, std::size_t>, Link> links;  // keyed by (smaller, larger) index
    std::string source;                                         // the file it came from, for errors

    // The link between two different devices.
    [[nodiscard]] const Link& link(std::size_t a, std::size_t b) const;
    [[nodiscard]] std::optional<std::size_t> find(const std::string& device) const;
};

[[nodiscard]] Result<Cluster> parse_cluster(std::string_view text, const std::string& source);
[[nodiscard]] Result<Cluster> read_cluster(const std::string& path);
[[nodiscard]] std::string cluster_text(const Cluster& cluster);  // a cluster.yaml, every link in it

}  // namespace ecopipe
