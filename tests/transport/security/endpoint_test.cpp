#include "transport/security/endpoint.h"

#include <gtest/gtest.h>

#include "transport/security/security.h"

namespace ecopipe {
namespace {

TEST(Endpoint, ReadsAddressAndPort) {
    const auto endpoint = parse_endpoint("tcp://192.168.1.10:5599", "--join");
    ASSERT_TRUE(endpoint);
    EXPECT_EQ(endpoint->host, "192.168.1.10");
    EXPECT_EQ(endpoint->port, 5599);
    EXPECT_EQ(endpoint->text(), "tcp://192.168.1.10:5599");
    EXPECT_TRUE(parse_endpoint("tcp://[::1]:0", "x")->loopback());
    EXPECT_TRUE(parse_endpoint("tcp://127.0.0.1:1", "x")->loopback());
    EXPECT_FALSE(parse_endpoint("tcp://127.example.org:1", "x")->loopback());
}

TEST(Endpoint, IPv6StandsInBracketsAndIsComposedWithThem) {
    for (const char* text : {"tcp://[::1]:5599", "tcp://[fd00::10]:1", "tcp://[fe80::1%eth0]:7",
                             "tcp://[::ffff:10.0.0.1]:7"})
        EXPECT_EQ(parse_endpoint(text, "x")->text(), text);
    EXPECT_EQ((Endpoint{"fd00::10", 5599}.text()), "tcp://[fd00::10]:5599");
    EXPECT_EQ((Endpoint{"10.0.0.1", 80}.place()), "10.0.0.1:80");
    EXPECT_EQ(*parse_host("[fd00::10]", "x"), "fd00::10");
    EXPECT_EQ(*parse_host("fd00::10", "x"), "fd00::10");
    for (const char* text : {"", "[]", "[10.0.0.1]", "[pi]", "pi:5599", "::1]", "[::1", "a b",
                             "a/b", "u@pi", "12345::", "fd00::g"})
        EXPECT_EQ(parse_host(text, "x").error().code, ExitCode::kUsage) << text;
}

TEST(Endpoint, KnowsThisMachineAlone) {
    for (const char* host : {"127.0.0.1", "127.255.3.4", "127.1", "::1", "0:0:0:0:0:0:0:1",
                             "::ffff:127.0.0.1", "localhost"})
        EXPECT_TRUE((Endpoint{host, 1}.loopback())) << host;
    for (const char* host :
         {"0.0.0.0", "*", "10.0.0.1", "128.0.0.1", "::", "::2", "fe80::1%lo", "::ffff:10.0.0.1",
          "127.example.org", "localhost.example.org", "localhost4", "1::1"})
        EXPECT_FALSE((Endpoint{host, 1}.loopback())) << host;
    for (const char* host : {"localhost", "pi.local", "eth0"})
        EXPECT_TRUE((Endpoint{host, 1}.named())) << host;
    for (const char* host : {"*", "10.0.0.1", "::1", "fe80::1%eth0"})
        EXPECT_FALSE((Endpoint{host, 1}.named())) << host;
}

TEST(Endpoint, LocalhostListensOnBothKinds) {
    EXPECT_EQ(*listen_addresses("localhost"), (std::vector<std::string>{"127.0.0.1", "::1"}));
    EXPECT_EQ(listen_addresses("lo")->front(), "127.0.0.1");
    EXPECT_EQ(*listen_addresses("*"), std::vector<std::string>{"*"});
    const auto unknown = listen_addresses("no-such-host.invalid");
    ASSERT_FALSE(unknown);
    EXPECT_EQ(unknown.error().code, ExitCode::kUnreachable);
    EXPECT_TRUE(unknown.error().message.starts_with(
        "no-such-host.invalid: expected a name that has an address"));
}

TEST(Endpoint, RefusesAnythingElse) {
    for (const char* text : {"", "tcp://", "tcp://host", "tcp://host:", "tcp://host:70000",
                             "tcp://host:1x", "ipc://a:1", "tcp://a b:1", "tcp://:5",
                             "tcp://::1:5599", "tcp://[::1]", "tcp://[]:1", "tcp://[pi]:1"})
        EXPECT_EQ(parse_endpoint(text, "--bind").error().code, ExitCode::kUsage) << text;
}

TEST(Endpoint, OthersThanLoopbackNeedToBeAllowedAloud) {
    EXPECT_TRUE(allow_address({"127.0.0.1", 1}, Security{}, "--bind"));
    EXPECT_TRUE(allow_address({"localhost", 1}, Security{}, "--bind"));
    EXPECT_TRUE(allow_address({"::1", 1}, Security{}, "--bind"));
    EXPECT_EQ(allow_address({"fd00::1", 1}, Security{}, "--bind").error().message,
              "--bind: tcp://[fd00::1]:1 is not a loopback address: give --keys DIR, or --insecure "
              "to leave traffic open to the network");
    EXPECT_EQ(allow_address({"0.0.0.0", 1}, Security{}, "--bind").error().code, ExitCode::kUsage);
    EXPECT_TRUE(allow_address({"0.0.0.0", 1}, Security{nullptr, true}, "--bind"));
}

}  // namespace
}  // namespace ecopipe
