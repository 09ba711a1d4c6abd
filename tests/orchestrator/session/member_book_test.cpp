// Who joins, who is refused and in which words, who is lost; of two processes of one name the
// living one has it; a device that sends faster than the portal handles is lost, and fills no
// memory.
#include "orchestrator/session/member_book.h"

#include <gtest/gtest.h>

#include <deque>

#include "transport/limits.h"
#include "transport/wire/codec.h"

namespace ecopipe {
namespace {

using std::chrono::milliseconds;

constexpr std::uint64_t kRun = 7;

// Connections are named DEVICE#NUMBER; those in `closed` are gone.
class Port : public ControlPort {
  public:
    bool send(std::string_view connection, const FrameHeader& header,
              const std::string& body) override {
        if (closed.contains(connection)) return false;
        EXPECT_EQ(header.run, kRun);
        const auto bytes = std::as_bytes(std::span(body));
        switch (static_cast<MessageType>(header.type)) {
            case MessageType::kWelcome:
                said[std::string(connection)] = "welcome";
                break;
            case MessageType::kRefuse:
                said[std::string(connection)] = decode<Refuse>(bytes)->reason;
                break;
            case MessageType::kPing:
                pinged[std::string(connection)] = decode<Ping>(bytes)->sent_ns;
                break;
            default:
                said[std::string(connection)] = "a message";
        }
        return true;
    }
    void tell(PortalEvent event) override { events.push_back(std::move(event)); }
    void tell_of_stranger(const std::string& what) override { strangers.push_back(what); }
    bool speaks_for(std::string_view connection, std::string_view device) override {
        return connection.starts_with(device);
    }
    void admitted(std::string_view, const std::string&) override {}

    std::set<std::string, std::less<>> closed;
    std::map<std::string, std::string> said;     // last, by connection
    std::map<std::string, std::int64_t> pinged;  // likewise
    std::vector<std::string> strangers;
    std::deque<PortalEvent> events;
};

LivenessLimits half_a_second() {
    LivenessLimits limits;
    limits.silence_min = limits.silence_max = milliseconds(500);
    return limits;
}

class Members : public testing::Test {
  protected:
    void say(const std::string& connection, MessageType type, const std::string& body) {
        FrameHeader header;
        header.run = kRun;
        header.type = static_cast<std::uint16_t>(type);
        book_.heard({connection, "10.0.0.2", header, std::as_bytes(std::span(body))}, now_);
    }
    // What the device is told.
    std::string hello(const std::string& connection, std::uint64_t instance,
                      const std::string& device = "pi", const std::string& version = "1") {
        Hello hello;
        hello.device = device;
        hello.program_version = version;
        hello.data_port = 1;
        hello.instance = instance;
        port_.said.erase(connection);
        say(connection, MessageType::kHello, encode(hello));
        return port_.said[connection];
    }
    void pong(const std::string& connection) {
        say(connection, MessageType::kPong,
            encode(Pong{port_.pinged.at(connection), 0, 0, 0, 0, 0, 0}));
    }
    void tick_after(Duration passed) {
        now_ += passed;
        book_.tick(now_, now_);
    }
    // What the portal is told next: "joined", how the device was lost, or "nothing".
    std::string told() {
        if (port_.events.empty()) return "nothing";
        const PortalEvent event = std::move(port_.events.front());
        port_.events.pop_front();
        if (const auto* lost = std::get_if<portal_event::Lost>(&event)) return lost->how;
        return std::holds_alternative<portal_event::Joined>(event) ? "joined" : "a message";
    }
    Port port_;
    MemberBook book_{port_, kRun, {{"hub", "pi"}, "1", milliseconds(50), half_a_second()}};
    Instant now_{std::chrono::seconds(1)};
};

TEST_F(Members, JoinOnceAndAreWelcomedAsOftenAsTheyKnock) {
    EXPECT_EQ(hello("pi#1", 1), "welcome");
    EXPECT_EQ(told(), "joined");
    EXPECT_EQ(hello("pi#1", 1), "welcome");
    EXPECT_EQ(told(), "nothing");
    EXPECT_TRUE(book_.send("pi", 1, {}, End{}));
    EXPECT_EQ(port_.said["pi#1"], "a message");
}

TEST_F(Members, AreThoseOfTheClusterOfThisVersionWithTheirOwnKey) {
    EXPECT_EQ(hello("tv#1", 1, "tv"), "no device of the cluster is named tv; it has hub, pi");
    EXPECT_EQ(hello("pi#1", 1, "pi", "2"), "version 2 cannot join version 1");
    EXPECT_EQ(hello("pi#1", 1, "hub"), "its key is not the one of hub");
    EXPECT_EQ(port_.strangers.back(),
              "control port: 10.0.0.2 says it is hub, its key is another's");
    say("pi#1", MessageType::kHello, "no Hello");
    EXPECT_TRUE(port_.strangers.back().starts_with("control port: a bad Hello from 10.0.0.2"));
    EXPECT_EQ(told(), "nothing");
}

TEST_F(Members, NobodyJoinsARunThatIsOver) {
    book_.close();
    EXPECT_EQ(hello("pi#1", 1), "");
    EXPECT_EQ(told(), "nothing");
}

TEST_F(Members, WhatIsForOneLifeReachesNoOther) {
    hello("pi#1", 1);
    EXPECT_FALSE(book_.send("pi", 2, {}, End{}));
    EXPECT_FALSE(book_.send("hub", 1, {}, End{}));
    book_.forget("pi", 2);
    EXPECT_TRUE(book_.send("pi", 1, {}, End{}));
    book_.forget("pi", 1);
    EXPECT_FALSE(book_.send("pi", 1, {}, End{}));
    EXPECT_EQ(told(), "joined");
    EXPECT_EQ(told(), "nothing") << "who leaves by its own word is not lost";
}

TEST_F(Members, OneWhoseConnectionIsGoneIsLostAtTheNextPing) {
    hello("pi#1", 1);
    told();
    port_.closed.insert("pi#1");
    tick_after(milliseconds(50));
    EXPECT_EQ(told(), "its connection is gone");
}

TEST_F(Members, OneThatWasTakenForLostIsToldSoAndWhy) {
    hello("pi#1", 1);
    told();
    tick_after(milliseconds(600));
    EXPECT_TRUE(told().starts_with("it has said nothing for 0.6 s"));
    say("pi#1", MessageType::kDone, "");
    EXPECT_TRUE(port_.said["pi#1"].starts_with("taken for lost: it has said nothing for 0.6 s"));
    EXPECT_EQ(told(), "nothing");
}

TEST_F(Members, WhatThisProcessSleptThroughCountsForNobody) {
    hello("pi#1", 1);
    told();
    const Instant due = now_ + milliseconds(50);
    now_ += std::chrono::seconds(60);
    book_.tick(now_, due);
    EXPECT_EQ(told(), "nothing");
}

TEST_F(Members, OneThatAnswersKeepsItsNameAndTheImpostorIsTold) {
    hello("pi#1", 1);
    EXPECT_EQ(hello("pi#2", 2), "") << "its answer may have been under way when it was killed";
    pong("pi#1");
    EXPECT_EQ(hello("pi#2", 2), "a device named pi has already joined from 10.0.0.2, and answers");
    EXPECT_EQ(told(), "joined");
    EXPECT_EQ(told(), "nothing");
}

TEST_F(Members, AStageThatIsStartedAgainWaitsForItsOldConnectionAndJoins) {
    hello("pi#1", 1);
    EXPECT_EQ(hello("pi#2", 2), "");
    tick_after(milliseconds(600));
    EXPECT_EQ(hello("pi#2", 2), "welcome");
    EXPECT_EQ(told(), "joined");
    EXPECT_TRUE(told().starts_with("it has said nothing")) << "the old one is lost first";
    EXPECT_EQ(told(), "joined");
}

TEST_F(Members, AStageThatIsStartedAgainJoinsAtOnceWhereItsOldConnectionIsGone) {
    hello("pi#1", 1);
    port_.closed.insert("pi#1");
    EXPECT_EQ(hello("pi#2", 2), "welcome");
    EXPECT_EQ(told(), "joined");
    EXPECT_EQ(told(), "its connection is gone");
    EXPECT_EQ(told(), "joined");
}

TEST_F(Members, OneProcessOverANewConnectionIsTheSameDeviceAtOnce) {
    hello("pi#1", 1);
    EXPECT_EQ(hello("pi#2", 1), "welcome");
    EXPECT_EQ(told(), "joined");
    EXPECT_EQ(told(), "it dialled again");
    EXPECT_EQ(told(), "joined");
}

class Backlogs : public Members {
  protected:
    void SetUp() override {
        hello("pi#1", 1);
        port_.events.clear();
    }
    void send(std::size_t bytes) { say("pi#1", MessageType::kDone, std::string(bytes, 'x')); }
};

TEST_F(Backlogs, HoldSoManyMessagesAndOneMoreLosesTheDevice) {
    for (std::size_t i = 0; i < kControlBacklogMessages; ++i) send(1);
    for (std::size_t i = 0; i < kControlBacklogMessages; ++i) ASSERT_EQ(told(), "a message") << i;
    send(1);
    EXPECT_EQ(told(), "it sends more than can be handled");
}

TEST_F(Backlogs, HoldSoManyBytesAndOneMoreLosesTheDevice) {
    send(kControlBacklogBytes - 1);
    send(1);
    EXPECT_EQ(told(), "a message");
    EXPECT_EQ(told(), "a message");
    send(1);
    EXPECT_EQ(told(), "it sends more than can be handled");
}

TEST_F(Backlogs, WhatIsHandledMakesRoom) {
    for (std::size_t i = 0; i < 2 * kControlBacklogMessages; ++i) {
        send(1);
        ASSERT_EQ(port_.events.size(), 1U) << i;
        std::get<portal_event::Message>(port_.events.front()).handled();
        port_.events.clear();
    }
}

}  // namespace
}  // namespace ecopipe
