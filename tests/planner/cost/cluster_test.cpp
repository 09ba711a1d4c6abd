#include "planner/cost/cluster.h"

#include <gtest/gtest.h>

#include "planner/report/what_if.h"

namespace ecopipe {
namespace {

std::string problem(const std::string& text) {
    const auto result = parse_cluster(text, "c.yaml");
    if (result) return "accepted";
    EXPECT_EQ(result.error().code, ExitCode::kBadFile);
    return result.error().message;
}

const std::string kHead = "name: home\nportal: hub\nportal_address: 10.0.0.1\n";
const std::string kTwo =
    "devices:\n  - {name: hub, memory_mib: 100}\n  - {name: pi, memory_mib: 50, speed: 0.5}\n";
const std::string kLink = "default_link: {mbps: 100, latency_ms: 1}\n";

TEST(Cluster, ReadsTheContractsExample) {
    const auto cluster =
        read_cluster(std::string(ECOPIPE_SOURCE_DIR) + "/tests/planner/data/home.yaml");
    ASSERT_TRUE(cluster) << cluster.error().message;
    EXPECT_EQ(cluster->devices.size(), 4U);
    EXPECT_EQ(cluster->portal, 0U);
    EXPECT_EQ(cluster->port, 5599);
    EXPECT_EQ(cluster->devices[2].threads, 2);
    EXPECT_EQ(cluster->devices[3].data_port, 5600);
    EXPECT_EQ(cluster->link(2, 0).mbps, 940);
    EXPECT_EQ(cluster->link(3, 1).medium, "wifi");
    EXPECT_EQ(cluster->link(2, 3).mbps, 100);
}

TEST(Cluster, RefusesWithItsPlace) {
    EXPECT_EQ(problem(kHead + kTwo + kLink), "accepted");
    EXPECT_EQ(
        problem(kHead +
                "devices:\n  - {name: hub, memory_mib: 100}\n  - {name: hub, memory_mib: 1}\n" +
                kLink),
        "c.yaml: devices[1].name: expected a name of its own, found 'hub' again");
    EXPECT_EQ(problem(kHead + kTwo + kLink +
                      "links:\n  - {between: [hub, mars], mbps: 1, latency_ms: 0}\n"),
              "c.yaml: links[0].between: expected a device of this cluster, found 'mars'");
    EXPECT_EQ(problem(kHead + kTwo + kLink +
                      "links:\n  - {between: [hub, hub], mbps: 1, latency_ms: 0}\n"),
              "c.yaml: links[0].between: expected two different devices, found 'hub' twice");
    EXPECT_EQ(
        problem(kHead + kTwo + kLink + "links:\n  - {between: [hub], mbps: 1, latency_ms: 0}\n"),
        "c.yaml: links[0].between: expected two devices, found 1");
    EXPECT_EQ(problem(kHead + kTwo + kLink +
                      "links:\n  - {between: [hub, pi], mbps: 1, latency_ms: 0}\n  - {between: "
                      "[pi, hub], mbps: 2, latency_ms: 0}\n"),
              "c.yaml: links[1].between: expected one link between pi and hub, found another");
    EXPECT_EQ(
        problem(kHead + "devices:\n  - {name: hub, memory_mib: 9, speed: 1, profile: p.json}\n" +
                kLink),
        "c.yaml: devices[0].speed: expected speed or profile, found both");
    EXPECT_EQ(
        problem(kHead + kTwo),
        "c.yaml: default_link: expected one, since links has none between hub and pi; found none");
    EXPECT_EQ(problem("name: home\nportal: mars\nportal_address: x\n" + kTwo + kLink),
              "c.yaml: portal: expected a device of this cluster, found 'mars'");
    for (const char* number : {".nan", ".inf", "-1", "0", "1e308", "many", "[]"}) {
        const std::string device =
            std::string("devices:\n  - {name: hub, memory_mib: ") + number + "}\n";
        EXPECT_EQ(problem(kHead + device + kLink)
                      .find("c.yaml: devices[0].memory_mib: expected a number"),
                  0U)
            << number;
        const std::string speed =
            std::string("devices:\n  - {name: hub, memory_mib: 9, speed: ") + number + "}\n";
        EXPECT_EQ(
            problem(kHead + speed + kLink).find("c.yaml: devices[0].speed: expected a number"), 0U)
            << number;
        const std::string link =
            std::string("default_link: {mbps: ") + number + ", latency_ms: 0}\n";
        EXPECT_EQ(problem(kHead + kTwo + link).find("c.yaml: default_link.mbps: expected a number"),
                  0U)
            << number;
    }
    for (const char* text :
         {"name: home\n", "[]", "- a\n- b\n", "7", "{", "devices: &a []\nportal: *a\n"})
        EXPECT_EQ(problem(text).find("c.yaml: "), 0U) << text;
    EXPECT_NE(problem(kHead + kTwo + kLink + "colour: red\n").find("colour: is not a known key"),
              std::string::npos);
    EXPECT_NE(problem(kHead + "devices: []\n" + kLink), "accepted");
    EXPECT_NE(problem(kHead + "devices:\n  - {name: \"a b\", memory_mib: 9}\n" + kLink),
              "accepted");
    EXPECT_NE(problem(std::string(10 << 20, '[')), "accepted");
}

TEST(Cluster, ItsTextReadsBackTheSame) {
    const auto cluster = parse_cluster(
        "name: home\nportal: hub\nportal_address: 10.0.0.1\nport: 6000\ndevices:\n"
        "  - {name: hub, memory_mib: 2048, speed: 0.5, threads: 2}\n"
        "  - {name: pi, memory_mib: 512.5, profile: pi.json, host: a@b, data_address: 10.0.0.2,\n"
        "     data_port: 5601}\n"
        "  - {name: lap, memory_mib: 512}\n"
        "default_link: {mbps: 100, latency_ms: 1}\n"
        "links:\n  - {between: [pi, hub], mbps: 940.25, latency_ms: 0.3, medium: wifi}\n",
        "a");
    ASSERT_TRUE(cluster);
    const std::string text = cluster_text(*cluster);
    const auto again = parse_cluster(text, "b");
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(cluster_text(*again), text);
    EXPECT_EQ(again->link(0, 1).mbps, 940.25);
    EXPECT_EQ(again->link(0, 1).medium, "wifi");
    EXPECT_EQ(again->link(1, 2).mbps, 100);
    EXPECT_EQ(again->devices[1].data_port, 5601);
    EXPECT_EQ(again->devices[0].threads, 2);
}

// One that is emulated or only planned for is dialled by nobody.
TEST(Cluster, NeedsNoPortalAddress) {
    const auto cluster = parse_cluster("name: home\nportal: hub\n" + kTwo + kLink, "c.yaml");
    ASSERT_TRUE(cluster) << cluster.error().message;
    EXPECT_EQ(cluster->portal_address, "");
    const auto again = parse_cluster(cluster_text(*cluster), "again");
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(cluster_text(*again), cluster_text(*cluster));
}

TEST(Cluster, WithoutADeviceKeepsTheOthersLinks) {
    const auto cluster =
        read_cluster(std::string(ECOPIPE_SOURCE_DIR) + "/tests/planner/data/home.yaml");
    ASSERT_TRUE(cluster);
    const Cluster rest = without_device(*cluster, 1);
    ASSERT_EQ(rest.devices.size(), 3U);
    EXPECT_EQ(rest.link(0, 1).mbps, 940);
    EXPECT_EQ(rest.link(1, 2).mbps, 100);
    EXPECT_EQ(rest.links.size(), 1U);
}

}  // namespace
}  // namespace ecopipe
