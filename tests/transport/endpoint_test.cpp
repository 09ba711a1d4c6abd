#include "transport/endpoint.h"

#include <gtest/gtest.h>

#include "transport/security.h"

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

TEST(Endpoint, RefusesAnythingElse) {
    for (const char* text : {"", "tcp://", "tcp://host", "tcp://host:", "tcp://host:70000",
                             "tcp://host:1x", "ipc://a:1", "tcp://a b:1", "tcp://:5"})
        EXPECT_EQ(parse_endpoint(text, "--bind").error().code, ExitCode::kUsage) << text;
}

TEST(Endpoint, OthersThanLoopbackNeedToBeAllowedAloud) {
    EXPECT_TRUE(allow_address({"127.0.0.1", 1}, Security{}, "--bind"));
    EXPECT_TRUE(allow_address({"localhost", 1}, Security{}, "--bind"));
    EXPECT_EQ(allow_address({"0.0.0.0", 1}, Security{}, "--bind").error().code, ExitCode::kUsage);
    EXPECT_TRUE(allow_address({"0.0.0.0", 1}, Security{nullptr, true}, "--bind"));
}

}  // namespace
}  // namespace ecopipe
