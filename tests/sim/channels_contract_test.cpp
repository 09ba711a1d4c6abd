// What TensorChannels promises, held against the data plane over sockets and against the simulated
// one: a simulation that is kinder or harsher than what it stands for proves little.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <set>

#include "core/inbox.h"
#include "tests/sim/sim_channels.h"
#include "transport/data/data_plane.h"

namespace ecopipe::sim {
namespace {

constexpr std::uint64_t kRun = 9;
constexpr std::uint64_t kLeft = 11;  // instances
constexpr std::uint64_t kRight = 12;

// What one end was told.
struct Heard {
    std::vector<Delivery> tensors;
    std::vector<std::pair<std::string, std::uint64_t>> attached;
    int room = 0;
};

// Two ends over loopback.
class RealPair {
  public:
    RealPair() {
        left_.set_run(kRun, kLeft);
        right_.set_run(kRun, kRight);
        endpoint_ = {"127.0.0.1", right_.bind({"127.0.0.1", 0}).value_or(0)};
    }
    TensorChannels& left() { return left_; }
    TensorChannels& right() { return right_; }
    [[nodiscard]] const Endpoint& endpoint() const { return endpoint_; }
    Heard left_heard, right_heard;

    // Hears until it is so; false when that does not come about.
    bool until(const std::function<bool()>& so) {
        const Instant deadline = monotonic_now() + std::chrono::seconds(20);
        while (!so()) {
            if (monotonic_now() > deadline) return false;
            if (const auto task = tasks_.pop_until(monotonic_now() + std::chrono::milliseconds(20)))
                (*task)();
        }
        return true;
    }

  private:
    DataPlane::Callbacks into(Heard& heard) {
        return {[this, &heard](Delivery delivery) {
                    auto shared = std::make_shared<Delivery>(std::move(delivery));
                    tasks_.push([&heard, shared] { heard.tensors.push_back(*shared); });
                },
                [this, &heard](const std::string& peer, std::uint64_t instance) {
                    tasks_.push(
                        [&heard, peer, instance] { heard.attached.emplace_back(peer, instance); });
                },
                {},
                [this, &heard] { tasks_.push([&heard] { ++heard.room; }); }};
    }
    NetLoop loop_;
    Inbox<std::function<void()>> tasks_;
    DataPlane left_{loop_, "left", into(left_heard)};
    DataPlane right_{loop_, "right", into(right_heard)};
    Endpoint endpoint_;
};

// Two ends of the simulated network, which loses nothing here.
class SimPair {
  public:
    SimPair() {
        start("left", left_);
        start("right", right_);
        left_.set_run(kRun, kLeft);
        right_.set_run(kRun, kRight);
    }
    TensorChannels& left() { return left_; }
    TensorChannels& right() { return right_; }
    [[nodiscard]] const Endpoint& endpoint() const { return endpoint_; }
    Heard left_heard, right_heard;

    bool until(const std::function<bool()>& so) {
        const Instant deadline = net_.now() + std::chrono::seconds(20);
        while (!so())
            if (!net_.advance(deadline)) return so();
        return true;
    }

  private:
    static SimChannels::Events into(Heard& heard) {
        return {[&heard](Delivery delivery) { heard.tensors.push_back(std::move(delivery)); },
                [&heard](const std::string& peer, std::uint64_t instance) {
                    heard.attached.emplace_back(peer, instance);
                },
                [&heard] { ++heard.room; }};
    }
    void start(const std::string& node, SimChannels& channels) {
        net_.start(node, [&channels](const SimMessage& message) {
            if (const auto head = message.open()) channels.on_message(*head, message);
        });
    }
    SimNetwork net_{1};
    SimChannels left_{net_, "left", into(left_heard)};
    SimChannels right_{net_, "right", into(right_heard)};
    Endpoint endpoint_{"sim", 1};
};

TensorAddress address(TensorKind kind, std::uint32_t micro_batch) {
    TensorAddress address;
    address.generation = 3;
    address.step = 7;
    address.kind = kind;
    address.micro_batch = micro_batch;
    address.slice = 1;
    address.producer = 5;
    address.output = 1;
    address.outputs = 2;
    address.gradient_returns = true;
    return address;
}

HostTensor numbered(std::int64_t elements) {
    HostTensor tensor = HostTensor::allocate(DType::kF32, {elements});
    float next = 0;
    for (float& value : tensor.as<float>()) value = next++;
    return tensor;
}

bool same(const HostTensor& a, const HostTensor& b) {
    return a.dtype() == b.dtype() && a.shape() == b.shape() &&
           std::memcmp(a.data(), b.data(), a.bytes()) == 0;
}

template <class Pair>
class ChannelsContract : public testing::Test {
  protected:
    void connect() {
        ASSERT_TRUE(pair_.left().dial("right", pair_.endpoint(), kRight));
        ASSERT_TRUE(pair_.until([&] {
            return !pair_.left_heard.attached.empty() && !pair_.right_heard.attached.empty();
        }));
    }
    Pair pair_;
};
using Pairs = testing::Types<RealPair, SimPair>;
struct PairNames {
    template <class Pair>
    static std::string GetName(int) {
        return std::is_same_v<Pair, RealPair> ? "Sockets" : "Simulated";
    }
};
TYPED_TEST_SUITE(ChannelsContract, Pairs, PairNames);

TYPED_TEST(ChannelsContract, ADialStandsAtBothEndsWithTheOthersInstance) {
    EXPECT_FALSE(this->pair_.left().connected("right"));
    this->connect();
    EXPECT_TRUE(this->pair_.left().connected("right"));
    const auto of_right = std::pair(std::string("right"), kRight);
    const auto of_left = std::pair(std::string("left"), kLeft);
    EXPECT_EQ(this->pair_.left_heard.attached.front(), of_right);
    EXPECT_EQ(this->pair_.right_heard.attached.front(), of_left);
}

TYPED_TEST(ChannelsContract, TensorsArriveAsTheyWereBothWays) {
    this->connect();
    const HostTensor tensor = numbered(1000);
    this->pair_.left().send("right", address(TensorKind::kActivation, 1), tensor);
    this->pair_.right().send("left", address(TensorKind::kGradient, 2), tensor);
    ASSERT_TRUE(this->pair_.until([&] {
        return this->pair_.right_heard.tensors.size() == 1 &&
               this->pair_.left_heard.tensors.size() == 1;
    }));
    const Delivery& down = this->pair_.right_heard.tensors.front();
    const Delivery& up = this->pair_.left_heard.tensors.front();
    EXPECT_EQ(down.peer, "left");
    EXPECT_EQ(down.address, address(TensorKind::kActivation, 1));
    EXPECT_TRUE(same(down.tensor, tensor));
    EXPECT_EQ(up.peer, "right");
    EXPECT_EQ(up.address, address(TensorKind::kGradient, 2));
    EXPECT_TRUE(same(up.tensor, tensor));
    EXPECT_EQ(this->pair_.left().sent_bytes(), tensor.bytes());
}

TYPED_TEST(ChannelsContract, AnEncodedTensorIsDecodedAtTheOtherEnd) {
    this->connect();
    const EncodedTensor encoded = encode_tensor(numbered(100), TensorCodec::kInt8);
    this->pair_.left().send("right", address(TensorKind::kActivation, 0), encoded);
    ASSERT_TRUE(this->pair_.until([&] { return !this->pair_.right_heard.tensors.empty(); }));
    EXPECT_TRUE(same(this->pair_.right_heard.tensors.front().tensor, decode_tensor(encoded)));
}

TYPED_TEST(ChannelsContract, WhoIsForgottenIsConnectedNoMoreAndMayBeDialledAgain) {
    this->connect();
    this->pair_.left().keep_only({}, 0);
    EXPECT_FALSE(this->pair_.left().connected("right"));
    ASSERT_TRUE(this->pair_.left().dial("right", this->pair_.endpoint(), kRight));
    EXPECT_TRUE(this->pair_.until([&] { return this->pair_.left_heard.attached.size() == 2; }));
    this->pair_.left().send("right", address(TensorKind::kActivation, 0), numbered(3));
    EXPECT_TRUE(this->pair_.until([&] { return !this->pair_.right_heard.tensors.empty(); }));
}

TYPED_TEST(ChannelsContract, WhoIsDeniedRoomIsToldWhenThereIsSome) {
    this->connect();
    constexpr std::int64_t kElements = 1 << 19;  // 2 MiB
    std::uint32_t sent = 0;
    while (this->pair_.left().has_room() && sent < 100)
        this->pair_.left().send("right", address(TensorKind::kInput, sent++), numbered(kElements));
    ASSERT_LT(sent, 100U);
    std::size_t taken = 0;
    EXPECT_TRUE(this->pair_.until([&] {
        for (; taken < this->pair_.right_heard.tensors.size(); ++taken)
            this->pair_.right().consumed("left", kElements * sizeof(float));
        return this->pair_.left_heard.room > 0;
    }));
}

}  // namespace
}  // namespace ecopipe::sim
