// The control port over real sockets; what it decides is tested by member_book_test.cpp.
#include "orchestrator/session/membership.h"

#include <gtest/gtest.h>

#include "core/command_line.h"

namespace ecopipe {
namespace {

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

class ControlPorts : public testing::Test {
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
    Membership membership_{loop_,
                           inbox_,
                           7,
                           {"127.0.0.1", 0},
                           {{"pi"}, kVersion, std::chrono::milliseconds(50), limits()}};
    std::uint16_t port_ = 0;
};

// Its last word was heard a moment ago and its connection stands: nothing but its silence tells.
TEST_F(ControlPorts, AStageThatIsStartedAgainWaitsForItsOldConnectionAndJoins) {
    Stage before(loop_, port_, 1);
    EXPECT_EQ(before.answer(), "welcomed");
    EXPECT_EQ(told(), "joined");
    before.fall_silent();
    Stage again(loop_, port_, 2);
    EXPECT_EQ(again.answer(), "welcomed");
    EXPECT_TRUE(told().starts_with("it has said nothing")) << "the old one is lost first";
    EXPECT_EQ(told(), "joined");
}

}  // namespace
}  // namespace ecopipe
