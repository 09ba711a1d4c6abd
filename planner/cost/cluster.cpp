#include "planner/cost/cluster.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/check.h"
#include "core/files.h"
#include "core/log.h"
#include "core/strict_yaml.h"
#include "domain/limits.h"

namespace ecopipe {
namespace {

constexpr Range<double> kMbps{1e-3, 1e6};
constexpr Range<double> kLatencyMs{0, 1e6};
constexpr Range<double> kMemoryMib{1, 1 << 24};
constexpr Range<double> kSpeed{1e-4, 1e4};

// Names reach log lines, host names and error messages: letters, digits and "-_." only.
bool plain_name(const std::string& name) {
    return !name.empty() && name.size() <= 64 &&
           std::all_of(name.begin(), name.end(), [](unsigned char c) {
               return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '-' || c == '_' || c == '.';
           });
}

std::string name(Fields& fields, const std::string& key) {
    std::string text = fields.text(key);
    if (!text.empty() && !plain_name(text))
        fields.refuse(key,
                      fmt::format("expected up to 64 letters, digits, '-', '_' or '.', found '{}'",
                                  printable(text)));
    return text;
}

Device read_device(Fields& fields) {
    Device device;
    device.name = name(fields, "name");
    device.memory_mib = fields.number("memory_mib", kMemoryMib);
    if (fields.has("speed") && fields.has("profile"))
        fields.refuse("speed", "expected speed or profile, found both");
    device.speed = fields.number("speed", kSpeed, 1.0);
    device.profile = fields.text("profile", "");
    device.host = fields.text("host", "");
    device.data_address = fields.text("data_address", "");
    device.data_port = static_cast<int>(fields.integer("data_port", {0, 65535}, 0));
    device.threads = static_cast<int>(fields.integer("threads", {1, 4096}, 1));
    fields.no_others();
    return device;
}

void read_devices(Fields& root, Cluster& cluster) {
    std::vector<Fields> devices = root.objects("devices");
    if (devices.empty() || devices.size() > kDevicesMax) {
        root.refuse("devices",
                    fmt::format("expected 1 to {} devices, found {}", kDevicesMax, devices.size()));
        return;
    }
    for (Fields& fields : devices) {
        Device device = read_device(fields);
        if (cluster.find(device.name))
            fields.refuse("name",
                          fmt::format("expected a name of its own, found '{}' again", device.name));
        cluster.devices.push_back(std::move(device));
    }
}

Link read_link(Fields& fields) {
    Link link;
    link.mbps = fields.number("mbps", kMbps);
    link.latency_ms = fields.number("latency_ms", kLatencyMs);
    if (fields.has("medium")) link.medium = name(fields, "medium");
    return link;
}

void read_between(Fields& fields, Cluster& cluster) {
    const std::vector<std::string> ends = fields.texts("between");
    Link link = read_link(fields);
    fields.no_others();
    if (ends.size() != 2) {
        fields.refuse("between", fmt::format("expected two devices, found {}", ends.size()));
        return;
    }
    std::size_t index[2] = {0, 0};
    for (std::size_t i = 0; i < 2; ++i) {
        const auto found = cluster.find(ends[i]);
        if (!found) {
            fields.refuse("between", fmt::format("expected a device of this cluster, found '{}'",
                                                 printable(ends[i])));
            return;
        }
        index[i] = *found;
    }
    if (index[0] == index[1])
        fields.refuse("between",
                      fmt::format("expected two different devices, found '{}' twice", ends[0]));
    const auto [low, high] = std::minmax(index[0], index[1]);
    if (!cluster.links.emplace(std::pair(low, high), std::move(link)).second)
        fields.refuse("between", fmt::format("expected one link between {} and {}, found another",
                                             ends[0], ends[1]));
}

void read_links(Fields& root, Cluster& cluster) {
    if (root.has("default_link")) {
        Fields fields = root.object("default_link");
        cluster.default_link = read_link(fields);
        fields.no_others();
    }
    if (root.has("links"))
        for (Fields& fields : root.objects("links")) read_between(fields, cluster);
    if (root.has("default_link")) return;
    for (std::size_t a = 0; a < cluster.devices.size(); ++a)
        for (std::size_t b = a + 1; b < cluster.devices.size(); ++b)
            if (!cluster.links.contains({a, b})) {
                root.refuse(
                    "default_link",
                    fmt::format("expected one, since links has none between {} and {}; found none",
                                cluster.devices[a].name, cluster.devices[b].name));
                return;
            }
}

}  // namespace

const Link& Cluster::link(std::size_t a, std::size_t b) const {
    ECOPIPE_CHECK(a != b && a < devices.size() && b < devices.size());
    const auto found = links.find(std::minmax(a, b));
    return found != links.end() ? found->second : default_link;
}

std::optional<std::size_t> Cluster::find(const std::string& device) const {
    for (std::size_t i = 0; i < devices.size(); ++i)
        if (devices[i].name == device) return i;
    return std::nullopt;
}

Result<Cluster> parse_cluster(std::string_view text, const std::string& source) {
    ECOPIPE_ASSIGN_OR_RETURN(Json json, parse_yaml(text, source));
    Document document(std::move(json), source);
    Fields root = document.root();
    Cluster cluster;
    cluster.source = source;
    cluster.name = name(root, "name");
    const std::string portal = root.text("portal");
    cluster.portal_address = root.text("portal_address", "");
    cluster.port = static_cast<int>(root.integer("port", {1, 65535}, 5599));
    read_devices(root, cluster);
    if (const auto found = cluster.find(portal)) {
        cluster.portal = *found;
    } else if (!portal.empty()) {
        root.refuse("portal", fmt::format("expected a device of this cluster, found '{}'",
                                          printable(portal)));
    }
    read_links(root, cluster);
    root.no_others();
    ECOPIPE_RETURN_IF_ERROR(document.finish());
    return cluster;
}

Result<Cluster> read_cluster(const std::string& path) {
    ECOPIPE_ASSIGN_OR_RETURN(const std::string text, read_file(path, kConfigBytesMax));
    return parse_cluster(text, path);
}

std::string cluster_text(const Cluster& cluster) {
    // JSON strings are YAML strings.
    const auto quoted = [](const std::string& text) { return OrderedJson(text).dump(); };
    const auto device_name = [&](std::size_t i) { return quoted(cluster.devices[i].name); };
    std::string text =
        fmt::format("name: {}\nportal: {}\n", quoted(cluster.name), device_name(cluster.portal));
    if (!cluster.portal_address.empty())
        text += fmt::format("portal_address: {}\n", quoted(cluster.portal_address));
    text += fmt::format("port: {}\ndevices:\n", cluster.port);
    for (const Device& device : cluster.devices) {
        text +=
            fmt::format("  - {{name: {}, memory_mib: {}", quoted(device.name), device.memory_mib);
        text += device.profile.empty() ? fmt::format(", speed: {}", device.speed)
                                       : fmt::format(", profile: {}", quoted(device.profile));
        if (!device.host.empty()) text += fmt::format(", host: {}", quoted(device.host));
        if (!device.data_address.empty())
            text += fmt::format(", data_address: {}", quoted(device.data_address));
        if (device.data_port != 0) text += fmt::format(", data_port: {}", device.data_port);
        if (device.threads != 1) text += fmt::format(", threads: {}", device.threads);
        text += "}\n";
    }
    const auto link_text = [&](const Link& link) {
        const std::string medium =
            link.medium.empty() ? "" : fmt::format(", medium: {}", quoted(link.medium));
        return fmt::format("mbps: {:.6g}, latency_ms: {:.6g}{}", link.mbps, link.latency_ms,
                           medium);
    };
    if (cluster.default_link.mbps > 0)
        text += fmt::format("default_link: {{{}}}\n", link_text(cluster.default_link));
    if (cluster.devices.size() > 1) text += "links:\n";
    for (std::size_t a = 0; a < cluster.devices.size(); ++a)
        for (std::size_t b = a + 1; b < cluster.devices.size(); ++b)
            text += fmt::format("  - {{between: [{}, {}], {}}}\n", device_name(a), device_name(b),
                                link_text(cluster.link(a, b)));
    return text;
}

}  // namespace ecopipe
