#include "stage_runtime/stage/portal_contact.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

using std::chrono::milliseconds;

class Side : public ContactSide {
  public:
    void send(const FrameHeader& header, const std::string& body) override {
        sent.emplace_back(header, body);
    }
    void hand_over(const FrameHeader& header, std::vector<std::byte>) override {
        handed_over.push_back(static_cast<MessageType>(header.type));
    }
    void introduce(const Introduce&) override { ++introduced; }
    void portal_lost(Error error) override { lost.push_back(error.message); }

    std::vector<std::pair<FrameHeader, std::string>> sent;
    std::vector<MessageType> handed_over;
    int introduced = 0;
    std::vector<std::string> lost;
};

class Contact : public testing::Test {
  protected:
    void SetUp() override {
        Hello hello;
        hello.device = "pi";
        hello.program_version = "1";
        hello.data_port = 1;
        contact_.begin("tcp://hub:7000", hello, now_);
        due_ = contact_.tick(now_);
    }
    void wait_until(Instant when) {
        now_ = when;
        due_ = contact_.tick(now_);
    }
    template <class Message>
    void hear(const Message& message) {
        FrameHeader header;
        header.run = kRun;
        header.type = static_cast<std::uint16_t>(Message::kType);
        const std::string body = encode(message);
        contact_.heard(header, std::as_bytes(std::span(body)), now_);
    }
    [[nodiscard]] std::size_t hellos() const {
        std::size_t count = 0;
        for (const auto& [header, body] : side_.sent)
            count += header.type == static_cast<std::uint16_t>(MessageType::kHello) ? 1 : 0;
        return count;
    }
    static constexpr std::uint64_t kRun = 9;
    static constexpr Welcome kWelcome{250, 3000};
    Side side_;
    ComputeActivity activity_;
    PortalContact contact_{side_, activity_};
    Instant now_{std::chrono::seconds(1)};
    Instant due_{};
};

TEST_F(Contact, KnocksUntilItIsWelcomed) {
    for (int i = 0; i < 10; ++i) wait_until(due_);
    EXPECT_EQ(hellos(), 11U);
    hear(kWelcome);
    hear(kWelcome);
    wait_until(due_);
    EXPECT_EQ(hellos(), 11U);
    EXPECT_EQ(side_.handed_over, std::vector<MessageType>{MessageType::kWelcome});
}

TEST_F(Contact, AnswersPingsWithWhatItsComputationIsAt) {
    hear(kWelcome);
    activity_.begin(4, 2, now_ - milliseconds(30));
    activity_.progress = 17;
    hear(Ping{123});
    EXPECT_EQ(side_.sent.back().first.run, kRun);
    const auto pong = decode<Pong>(std::as_bytes(std::span(side_.sent.back().second)));
    ASSERT_TRUE(pong);
    EXPECT_EQ(pong->echo_ns, 123);
    EXPECT_EQ(pong->local_ns, now_.time_since_epoch().count());
    EXPECT_EQ(pong->progress, 17U);
    EXPECT_EQ(pong->busy_ns, 30'000'000U);
    EXPECT_EQ(pong->step, 4U);
    EXPECT_EQ(pong->micro_batch, 2U);
    activity_.end(now_);
    hear(Ping{124});
    const auto idle = decode<Pong>(std::as_bytes(std::span(side_.sent.back().second)));
    EXPECT_EQ(idle->busy_ns, 0U);
    EXPECT_EQ(idle->longest_ns, 30'000'000U);
    EXPECT_EQ(side_.handed_over.size(), 1U) << "pings are answered here";
}

TEST_F(Contact, NoticesSilenceOnceAndNotWhileThePortalSpeaks) {
    hear(kWelcome);
    for (int i = 0; i < 20; ++i) {
        wait_until(due_ - milliseconds(100));
        hear(Ping{1});
    }
    EXPECT_TRUE(side_.lost.empty());
    while (due_ != Instant::max()) wait_until(due_);
    EXPECT_EQ(side_.lost,
              std::vector<std::string>{"portal tcp://hub:7000 has said nothing for 3.0 s"});
    contact_.lose({ExitCode::kMismatch, "again"});
    EXPECT_EQ(side_.lost.size(), 1U);
}

TEST_F(Contact, WhatItSleptThroughIsNoSilence) {
    hear(kWelcome);
    wait_until(due_);
    wait_until(due_ + std::chrono::seconds(60));
    EXPECT_TRUE(side_.lost.empty());
    wait_until(due_);
    EXPECT_EQ(side_.lost.size(), 1U) << "but what follows is";
}

TEST_F(Contact, BeginsAnewAfterALoss) {
    hear(kWelcome);
    contact_.lose({ExitCode::kMismatch, "another protocol"});
    EXPECT_EQ(contact_.tick(now_), Instant::max());
    contact_.begin("tcp://hub:7000", Hello{}, now_);
    due_ = contact_.tick(now_);
    EXPECT_EQ(hellos(), 2U);
    EXPECT_EQ(side_.sent.back().first.run, 0U) << "of no run yet";
}

}  // namespace
}  // namespace ecopipe
