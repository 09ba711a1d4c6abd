// A device that sends faster than the portal handles is lost, and fills no memory.
#include "orchestrator/membership.h"

#include <gtest/gtest.h>

#include <thread>

#include "core/command_line.h"

namespace ecopipe {
namespace {

class Backlogs : public testing::Test {
  protected:
    void SetUp() override {
        const auto port = membership_.bind();
        ASSERT_TRUE(port);
        loop_.call([&] {
            device_ = MessageSocket::dial(
                          loop_, {"127.0.0.1", *port}, [](const Incoming&) {},
                          [](std::string_view, const Error&) {}, "portal")
                          .value();
        });
        Hello hello;
        hello.device = "pi";
        hello.program_version = kVersion;
        hello.data_port = 1;
        const Instant end = monotonic_now() + std::chrono::seconds(10);
        while (!loop_.call([&] { return device_->send("", {}, hello); })) {
            ASSERT_LT(monotonic_now(), end);
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        const auto joined = next();
        ASSERT_TRUE(joined);
        ASSERT_TRUE(std::holds_alternative<portal_event::Joined>(*joined));
    }
    void TearDown() override {
        loop_.call([&] { device_.reset(); });
    }
    std::optional<PortalEvent> next() {
        return inbox_.pop_until(monotonic_now() + std::chrono::seconds(20));
    }
    // Sends one message of `bytes` and takes what the portal makes of it.
    std::optional<PortalEvent> after_message(std::size_t bytes) {
        FrameHeader header;
        header.run = kRun;
        header.type = static_cast<std::uint16_t>(MessageType::kDone);
        const std::string body(bytes, 'x');
        if (!loop_.call([&] { return device_->send("", header, body); })) return std::nullopt;
        return next();
    }

    static constexpr std::uint64_t kRun = 7;
    NetLoop loop_;
    Inbox<PortalEvent> inbox_;
    Membership membership_{
        loop_, inbox_, kRun, {{"127.0.0.1", 0}, {"pi"}, std::chrono::hours(1), {}}};
    std::unique_ptr<MessageSocket> device_;
};

std::string lost(const std::optional<PortalEvent>& event) {
    const auto* told = event ? std::get_if<portal_event::Lost>(&*event) : nullptr;
    return told ? told->how : "not lost";
}

TEST_F(Backlogs, HoldSoManyMessagesAndOneMoreLosesTheDevice) {
    for (std::size_t i = 0; i < kControlBacklogMessages; ++i)
        ASSERT_TRUE(std::holds_alternative<portal_event::Message>(after_message(1).value())) << i;
    EXPECT_TRUE(lost(after_message(1)).starts_with("it sends more than can be handled"));
}

TEST_F(Backlogs, HoldSoManyBytesAndOneMoreLosesTheDevice) {
    constexpr std::size_t kBody = kListenFrameBytesMax / 2;
    for (std::size_t bytes = 0; bytes < kControlBacklogBytes; bytes += kBody)
        ASSERT_TRUE(std::holds_alternative<portal_event::Message>(after_message(kBody).value()));
    EXPECT_TRUE(lost(after_message(1)).starts_with("it sends more than can be handled"));
}

TEST_F(Backlogs, WhatIsHandledMakesRoom) {
    for (std::size_t i = 0; i < 2 * kControlBacklogMessages; ++i) {
        const auto event = after_message(1);
        ASSERT_TRUE(std::holds_alternative<portal_event::Message>(event.value())) << i;
        std::get<portal_event::Message>(*event).handled();
    }
}

}  // namespace
}  // namespace ecopipe
