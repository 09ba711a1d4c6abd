// Which channels a device waits for, and when that is told.
#include "stage_runtime/stage/stage_peers.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class FewChannels : public TensorChannels {
  public:
    std::vector<std::string> kept;
    std::vector<std::string> dialled;
    std::set<std::string> cut;

    void set_run(std::uint64_t, std::uint64_t) override {}
    Result<void> dial(const std::string& peer, const Endpoint&, std::uint64_t) override {
        dialled.push_back(peer);
        return {};
    }
    bool connected(const std::string& peer) override { return !cut.contains(peer); }
    void keep_only(const std::vector<std::string>& keep, std::uint32_t) override { kept = keep; }
    void send(const std::string&, TensorAddress, EncodedTensor) override {}
    bool has_room() override { return true; }
    void consumed(const std::string&, std::size_t) override {}
    std::uint64_t sent_bytes() override { return 0; }
    void sizes_change() override {}
};

class StagePeersTest : public ::testing::Test {
  protected:
    static constexpr auto kTick = milliseconds(50);

    PeerAddress peer(const std::string& device, bool dial, std::uint64_t instance = 7) const {
        PeerAddress address;
        address.device = device;
        address.endpoint = "tcp://10.0.0.2:5600";
        address.dial = dial;
        address.instance = instance;
        return address;
    }
    // Looks at every tick until something is told.
    std::optional<StagePeers::Overdue> wait(Duration most, std::uint64_t progress = 0) {
        for (const Instant end = now_ + most; now_ < end;) {
            now_ += kTick;
            if (auto told = peers_.look(now_, progress)) return told;
        }
        return std::nullopt;
    }

    FewChannels channels_;
    StagePeers peers_{channels_, 5601, kTick};
    Instant now_{};
};

TEST_F(StagePeersTest, AChannelCountsForTheInstanceThatThePortalNamed) {
    peers_.attached(kPortalPeer, 1);
    peers_.attached("pi", 6);
    peers_.attached("old", 7);
    EXPECT_FALSE(peers_.stands("pi"));  // nobody named it yet
    peers_.configure({peer("pi", true), peer("nas", false)}, 2, now_);
    EXPECT_EQ(channels_.kept, (std::vector<std::string>{kPortalPeer, "nas", "pi"}));
    EXPECT_FALSE(peers_.is_attached("old"));
    EXPECT_EQ(peers_.missing(), (std::set<std::string>{"nas", "pi"}));
    peers_.attached("pi", 7);
    EXPECT_EQ(peers_.missing(), std::set<std::string>{"nas"});
    ASSERT_TRUE(peers_.dial());
    EXPECT_EQ(channels_.dialled, std::vector<std::string>{"pi"});
}

TEST_F(StagePeersTest, ADialledChannelThatWasCutIsWaitedForAgain) {
    peers_.configure({peer("pi", true), peer("nas", false)}, 1, now_);
    for (const char* name : {kPortalPeer, "pi", "nas"}) peers_.attached(name, 7);
    EXPECT_TRUE(peers_.missing().empty());
    channels_.cut = {"pi", "nas"};  // of nas, who dials, its own word counts
    peers_.configure({peer("pi", true), peer("nas", false)}, 2, now_);
    EXPECT_EQ(peers_.missing(), std::set<std::string>{"pi"});
}

TEST_F(StagePeersTest, WhoIsNotReachedIsToldOnce) {
    peers_.attached(kPortalPeer, 1);
    peers_.configure({peer("pi", true)}, 1, now_);
    EXPECT_FALSE(wait(StagePeers::kReachWait - seconds(1)));
    now_ += seconds(3600);  // stopped, and let go on
    EXPECT_FALSE(wait(milliseconds(500)));
    const auto told = wait(seconds(1));
    ASSERT_TRUE(told);
    EXPECT_EQ(told->unreached, std::vector<std::string>{"pi"});
    EXPECT_EQ(told->problem, "device pi cannot be reached at tcp://10.0.0.2:5600");
    EXPECT_FALSE(wait(seconds(60)));
    peers_.configure({peer("nas", false)}, 2, now_);
    const auto again = wait(seconds(6));
    ASSERT_TRUE(again);
    EXPECT_EQ(again->problem, "device nas did not dial this one's data port 5601");
}

TEST_F(StagePeersTest, NothingThatComesIsNoProgressAndATimeAwayDoesNotCount) {
    peers_.configure({}, 1, now_);
    for (std::uint64_t progress = 1; progress < 5; ++progress)
        EXPECT_FALSE(wait(StagePeers::kLoadTimeout - seconds(1), progress));
    EXPECT_FALSE(wait(seconds(5), 5));
    now_ += seconds(3600);  // stopped, and let go on
    EXPECT_FALSE(wait(StagePeers::kLoadTimeout - seconds(6), 5));
    const auto told = wait(seconds(3), 5);
    ASSERT_TRUE(told);
    EXPECT_TRUE(told->unreached.empty());
    EXPECT_EQ(told->problem, "the portal did not dial this device's data port 5601");
    peers_.attached(kPortalPeer, 1);
    EXPECT_EQ(peers_.look(now_ += kTick, 5)->problem, "");
    peers_.ready();
    EXPECT_FALSE(wait(seconds(60), 5));
}

}  // namespace
}  // namespace ecopipe
