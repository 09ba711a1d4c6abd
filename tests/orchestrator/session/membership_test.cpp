// The control port: a device that sends faster than the portal handles is lost, and fills no
// memory; of two processes of one name the living one has it.
#include "orchestrator/session/membership.h"

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

// A stage as the control port sees it: says Hello until it is answered, and answers pings unless it
// is told to be dead.
class Stage {
  public:
    Stage(NetLoop& loop, std::uint16_t port, std::uint64_t instance) : loop_(loop) {
        hello_.device = "pi";
        hello_.program_version = kVersion;
        hello_.data_port = 1;
        hello_.instance = instance;
        loop_.call([&] {
            socket_ = MessageSocket::dial(
                          loop_, {"127.0.0.1", port}, [this](const Incoming& m) { on_message(m); },
                          [](std::string_view, const Error&) {}, "portal")
                          .value();
            knock();
        });
    }
    Stage(const Stage&) = delete;
    Stage& operator=(const Stage&) = delete;
    ~Stage() {
        loop_.call([this] {
            lifeline_.reset();
            socket_.reset();
        });
    }
    // As its own machine would have it whose network is gone: it neither speaks nor hangs up.
    void fall_silent() {
        loop_.call([this] { silent_ = true; });
    }
    // "welcomed", or why it was refused.
    [[nodiscard]] std::string answer() {
        return answers_.pop_until(monotonic_now() + std::chrono::seconds(20)).value_or("no answer");
    }

  private:
    void knock() {
        if (answered_) return;
        static_cast<void>(socket_->send("", {}, hello_));
        loop_.at(monotonic_now() + std::chrono::milliseconds(20), lifeline_, [this] { knock(); });
    }
    void on_message(const Incoming& message) {
        if (silent_) return;
        const auto type = static_cast<MessageType>(message.header.type);
        if (type == MessageType::kPing) {
            FrameHeader header;
            header.run = message.header.run;
            static_cast<void>(socket_->send(
                "", header, Pong{decode<Ping>(message.body)->sent_ns, 0, 0, 0, 0, 0, 0}));
        } else if (!std::exchange(answered_, true)) {
            const auto refuse = decode<Refuse>(message.body);
            answers_.push(type == MessageType::kWelcome ? "welcomed" : refuse->reason);
        }
    }
    NetLoop& loop_;
    Lifeline lifeline_ = make_lifeline();
    Hello hello_;
    std::unique_ptr<MessageSocket> socket_;
    Inbox<std::string> answers_;
    bool answered_ = false;
    bool silent_ = false;
};

class Names : public testing::Test {
  protected:
    void SetUp() override {
        const auto port = membership_.bind();
        ASSERT_TRUE(port);
        port_ = *port;
    }
    // What the portal is told next: "joined", or how the device was lost.
    std::string told() {
        const auto event = inbox_.pop_until(monotonic_now() + std::chrono::seconds(20));
        if (!event) return "nothing";
        const auto* lost = std::get_if<portal_event::Lost>(&*event);
        return lost != nullptr ? lost->how : "joined";
    }
    static LivenessLimits limits() {
        LivenessLimits limits;
        limits.silence_min = limits.silence_max = std::chrono::milliseconds(500);
        return limits;
    }
    NetLoop loop_;
    Inbox<PortalEvent> inbox_;
    Membership membership_{
        loop_, inbox_, 7, {{"127.0.0.1", 0}, {"pi"}, std::chrono::milliseconds(50), limits()}};
    std::uint16_t port_ = 0;
};

TEST_F(Names, OneThatAnswersKeepsItsNameAndTheImpostorIsTold) {
    Stage holder(loop_, port_, 1);
    EXPECT_EQ(holder.answer(), "welcomed");
    EXPECT_EQ(told(), "joined");
    Stage impostor(loop_, port_, 2);
    EXPECT_EQ(impostor.answer(),
              "a device named pi has already joined from 127.0.0.1, and answers");
}

// Its last word was heard a moment ago and its connection stands: nothing but its silence tells.
TEST_F(Names, AStageThatIsStartedAgainWaitsForItsOldConnectionAndJoins) {
    Stage before(loop_, port_, 1);
    EXPECT_EQ(before.answer(), "welcomed");
    EXPECT_EQ(told(), "joined");
    before.fall_silent();
    Stage again(loop_, port_, 2);
    EXPECT_EQ(again.answer(), "welcomed");
    EXPECT_TRUE(told().starts_with("it has said nothing")) << "the old one is lost first";
    EXPECT_EQ(told(), "joined");
}

TEST_F(Names, OneProcessOverANewConnectionIsTheSameDeviceAtOnce) {
    Stage before(loop_, port_, 1);
    EXPECT_EQ(before.answer(), "welcomed");
    EXPECT_EQ(told(), "joined");
    Stage again(loop_, port_, 1);
    EXPECT_EQ(again.answer(), "welcomed");
    EXPECT_TRUE(told().starts_with("it dialled again"));
    EXPECT_EQ(told(), "joined");
}

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
