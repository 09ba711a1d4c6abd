#include "transport/data/data_plane.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <future>
#include <thread>
#include <zmq.hpp>

#include "core/inbox.h"
#include "transport/limits.h"
#include "transport/net/message_socket.h"

namespace ecopipe {
namespace {

constexpr std::uint64_t kRun = 9;

// Says on one connection to a data port what it is told to.
class Attacker {
  public:
    Attacker(NetLoop& loop, const Endpoint& port) : loop_(loop) {
        loop_.call([&] {
            socket_ = MessageSocket::dial(
                          loop_, port, [this](const Incoming&) { answers_.push(true); },
                          [](std::string_view, const Error&) {}, "")
                          .value();
        });
    }
    Attacker(const Attacker&) = delete;
    Attacker& operator=(const Attacker&) = delete;
    ~Attacker() {
        loop_.call([this] { socket_.reset(); });
    }
    template <class Message>
    bool send(const Message& message, Payload payload = {}) const {
        FrameHeader header;
        header.run = kRun;
        const Instant end = monotonic_now() + std::chrono::seconds(10);
        while (!loop_.call([&] { return socket_->send("", header, message, payload); })) {
            if (monotonic_now() > end) return false;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        return true;
    }
    [[nodiscard]] bool answered(Instant deadline) {
        return answers_.pop_until(deadline).has_value();
    }

  private:
    NetLoop& loop_;
    Inbox<bool> answers_;
    std::unique_ptr<MessageSocket> socket_;
};

// Two planes over loopback: `left` dials `right`.
class DataPlanes : public testing::Test {
  protected:
    void SetUp() override {
        const auto port = right_.bind({"127.0.0.1", 0});
        ASSERT_TRUE(port);
        left_.set_run(kRun, 0);
        right_.set_run(kRun, 0);
        endpoint_ = {"127.0.0.1", *port};
    }
    void connect() {
        ASSERT_TRUE(left_.dial("right", endpoint_, 0));
        for (auto* inbox : {&left_attached_, &right_attached_})
            ASSERT_TRUE(inbox->pop_until(deadline())) << "not attached";
    }
    static Instant deadline() { return monotonic_now() + std::chrono::seconds(10); }
    static HostTensor numbered(std::int64_t elements) {
        HostTensor tensor = HostTensor::allocate(DType::kF32, {elements});
        for (std::size_t i = 0; i < tensor.as<float>().size(); ++i)
            tensor.as<float>()[i] = static_cast<float>(i);
        return tensor;
    }
    static TensorAddress address(TensorKind kind, std::uint32_t micro_batch) {
        TensorAddress address;
        address.kind = kind;
        address.micro_batch = micro_batch;
        return address;
    }

    void TearDown() override {
        loop_.call([&] { others_.clear(); });
    }
    // One more peer of `right`, from one of two addresses.
    bool attach_another() {
        const std::string from = others_.size() % 2 == 0 ? "127.0.0.2" : "127.0.0.3";
        const Attach attach{"pi-" + std::to_string(others_.size()), 1};
        FrameHeader header;
        header.run = kRun;
        loop_.call([&] {
            others_.push_back(MessageSocket::dial(
                                  loop_, {from + ":0;127.0.0.1", endpoint_.port},
                                  [](const Incoming&) {}, [](std::string_view, const Error&) {},
                                  "right")
                                  .value());
        });
        const Instant end = deadline();
        while (!loop_.call([&] { return others_.back()->send("", header, attach); })) {
            if (monotonic_now() > end) return false;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        return true;
    }

    NetLoop loop_;
    std::vector<std::unique_ptr<MessageSocket>> others_;
    Inbox<Delivery> left_in_;
    Inbox<Delivery> right_in_;
    Inbox<std::string> left_attached_;
    Inbox<std::string> right_attached_;
    std::atomic<int> right_chunks_{0};
    std::atomic<int> left_room_{0};
    DataPlane left_{loop_,
                    "left",
                    {[this](Delivery d) { left_in_.push(std::move(d)); },
                     [this](const std::string& p, std::uint64_t) { left_attached_.push(p); },
                     {},
                     [this] { ++left_room_; }}};
    DataPlane right_{loop_,
                     "right",
                     {[this](Delivery d) { right_in_.push(std::move(d)); },
                      [this](const std::string& p, std::uint64_t) { right_attached_.push(p); },
                      [this] { ++right_chunks_; }}};
    Endpoint endpoint_;
};

// However slow the link is, whoever waits for a tensor sees it come.
TEST_F(DataPlanes, EachChunkThatArrivesIsTold) {
    connect();
    constexpr auto kElements = static_cast<std::int64_t>(3 * kChunkBytes / sizeof(float) + 1);
    left_.send("right", address(TensorKind::kGradient, 0), numbered(kElements));
    ASSERT_TRUE(right_in_.pop_until(deadline()));
    EXPECT_EQ(right_chunks_, 4);
}

TEST_F(DataPlanes, TensorsArriveWholeInOrderBothWays) {
    connect();
    for (std::uint32_t m = 0; m < 5; ++m) {
        left_.send("right", address(TensorKind::kActivation, m),
                   numbered(1'000'003));  // several chunks
        right_.send("left", address(TensorKind::kGradient, m), numbered(17));
    }
    for (std::uint32_t m = 0; m < 5; ++m) {
        const auto there = right_in_.pop_until(deadline());
        const auto back = left_in_.pop_until(deadline());
        ASSERT_TRUE(there && back);
        EXPECT_EQ(there->peer, "left");
        EXPECT_EQ(there->address.micro_batch, m);
        EXPECT_EQ(there->tensor.as<float>()[1'000'002], 1'000'002.0F);
        EXPECT_EQ(back->address.kind, TensorKind::kGradient);
    }
}

TEST_F(DataPlanes, WhatIsSentBeforeTheChannelStandsArrivesAfter) {
    left_.send("right", address(TensorKind::kActivation, 0), numbered(10));
    EXPECT_FALSE(right_in_.pop_until(monotonic_now() + std::chrono::milliseconds(50)));
    ASSERT_TRUE(left_.dial("right", endpoint_, 0));
    ASSERT_TRUE(left_attached_.pop_until(deadline()));
}

TEST_F(DataPlanes, StreamedTensorsWaitUntilConsumed) {
    connect();
    constexpr std::int64_t kElements = 512 * 1024;  // 2 MiB each
    constexpr std::uint32_t kCount = 20;
    for (std::uint32_t m = 0; m < kCount; ++m)
        left_.send("right", address(TensorKind::kInput, m), numbered(kElements));
    std::uint32_t arrived = 0;
    while (right_in_.pop_until(monotonic_now() + std::chrono::milliseconds(300))) ++arrived;
    EXPECT_LT(arrived, kCount);  // the window and the unconsumed limit hold the rest back
    EXPECT_FALSE(left_.has_room());
    EXPECT_EQ(left_room_, 0);
    std::uint32_t consumed = 0;
    while (consumed < kCount) {
        for (; consumed < arrived; ++consumed) right_.consumed("left", kElements * 4);
        while (arrived < kCount && right_in_.pop_until(deadline())) {
            ++arrived;
            right_.consumed("left", kElements * 4);
            ++consumed;
        }
    }
    EXPECT_EQ(arrived, kCount);
    EXPECT_TRUE(left_.has_room());
    EXPECT_EQ(left_room_, 1);  // told once, when there was
}

TEST_F(DataPlanes, AnotherRunsPeerIsNotHeard) {
    left_.set_run(10, 0);
    ASSERT_TRUE(left_.dial("right", endpoint_, 0));
    EXPECT_FALSE(right_attached_.pop_until(monotonic_now() + std::chrono::milliseconds(200)));
}

// More small tensors than ZeroMQ queues, while the receiver's network thread does not come to read:
// what an emulated link lets through then is sent later, not lost.
TEST_F(DataPlanes, AnEmulatedLinkLosesNothingWhenTheReceiverIsSlow) {
    constexpr std::uint32_t kTensors = 60'000;
    NetLoop slow_loop;
    std::atomic<std::uint32_t> received{0};
    std::atomic<bool> in_order{true};
    Inbox<bool> all;
    DataPlane slow(slow_loop, "slow",
                   {[&](const Delivery& delivery) {
                        if (delivery.address.micro_batch != received) in_order = false;
                        if (++received == kTensors) all.push(true);
                    },
                    [](const std::string&, std::uint64_t) {}});
    slow.set_run(9, 0);
    const auto port = slow.bind({"127.0.0.1", 0});
    ASSERT_TRUE(port);
    left_.emulate({}, EmulatedLink{10'000, 0.01});
    ASSERT_TRUE(left_.dial("slow", {"127.0.0.1", *port}, 0));
    ASSERT_TRUE(left_attached_.pop_until(deadline()));
    std::promise<void> release;
    slow_loop.post([blocked = release.get_future().share()] { blocked.wait(); });
    for (std::uint32_t m = 0; m < kTensors; ++m)
        left_.send("slow", address(TensorKind::kActivation, m), numbered(1));
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    release.set_value();
    EXPECT_TRUE(all.pop_until(deadline())) << received << " of " << kTensors << " arrived";
    EXPECT_TRUE(in_order);
}

TEST_F(DataPlanes, AnEmulatedLinkTakesItsTime) {
    left_.emulate({{"right", {.mbps = 80, .latency_ms = 20}}}, {});
    connect();
    const Instant sent = monotonic_now();
    left_.send("right", address(TensorKind::kActivation, 0), numbered(250'000));  // 1 MB: 100 ms
    ASSERT_TRUE(right_in_.pop_until(deadline()));
    EXPECT_GE(to_ms(monotonic_now() - sent), 119.9);
}

// Peers come from several addresses, each of which may have but so many connections.
TEST_F(DataPlanes, ADataPortHasSoManyPeersAndNoMore) {
    for (std::size_t i = 0; i < kDataPeersMax; ++i) {
        ASSERT_TRUE(attach_another());
        ASSERT_TRUE(right_attached_.pop_until(deadline())) << i;
    }
    ASSERT_TRUE(attach_another());
    EXPECT_FALSE(right_attached_.pop_until(monotonic_now() + std::chrono::milliseconds(300)));
}

TEST_F(DataPlanes, AConnectionIsOnePeerAndStaysIt) {
    const Attacker attacker(loop_, endpoint_);
    ASSERT_TRUE(attacker.send(Attach{"pi", 1}));
    ASSERT_TRUE(right_attached_.pop_until(deadline()));
    ASSERT_TRUE(attacker.send(Attach{"another", 1}));
    EXPECT_FALSE(right_attached_.pop_until(monotonic_now() + std::chrono::milliseconds(300)));
}

TEST_F(DataPlanes, WhatAPeerSendsBeyondItsCreditIsDropped) {
    const Attacker attacker(loop_, endpoint_);
    ASSERT_TRUE(attacker.send(Attach{"pi", 1}));
    ASSERT_TRUE(right_attached_.pop_until(deadline()));
    constexpr std::size_t kMib = 1U << 20;
    const auto bytes = std::make_shared<std::string>(kMib, '\0');
    TensorChunk chunk;
    chunk.kind = TensorKind::kInput;  // which counts until it is consumed; nobody does here
    chunk.dtype = DType::kU8;
    chunk.shape = {static_cast<std::int64_t>(kMib)};
    for (int i = 0; i < 64; ++i)
        ASSERT_TRUE(attacker.send(chunk, {std::as_bytes(std::span(*bytes)), bytes}));
    std::size_t taken = 0;
    while (right_in_.pop_until(monotonic_now() + std::chrono::milliseconds(500))) ++taken;
    EXPECT_GT(taken, kUnconsumedBytes / kMib);
    EXPECT_LE(taken, (kUnconsumedBytes + 2 * kWindowBytes) / kMib + 1);
}

// int8 takes four times as much once it is decoded; nothing is reserved before that is known.
TEST_F(DataPlanes, ATensorMayHaveSoManyBytesOnceDecodedAndNotOneMore) {
    const auto reserved = [] {
        std::ifstream statm("/proc/self/statm");
        std::size_t pages = 0;
        statm >> pages;
        return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    };
    Attacker attacker(loop_, endpoint_);
    ASSERT_TRUE(attacker.send(Attach{"pi", 1}));
    ASSERT_TRUE(right_attached_.pop_until(deadline()));
    ASSERT_TRUE(attacker.answered(deadline()));
    const auto begin = [&](std::size_t elements) {
        TensorChunk chunk;
        chunk.kind = TensorKind::kActivation;
        chunk.codec = TensorCodec::kInt8;
        chunk.dtype = encoded_dtype(chunk.codec);
        chunk.shape = {static_cast<std::int64_t>(elements)};
        const std::size_t before = reserved();
        EXPECT_TRUE(attacker.send(chunk));
        EXPECT_TRUE(attacker.send(Attach{"pi", 1}));  // answered after it
        EXPECT_TRUE(attacker.answered(deadline()));
        return reserved() - before;
    };
    EXPECT_LT(begin(kTensorBytesMax / 4 + 1), kTensorBytesMax / 8);
    EXPECT_GE(begin(kTensorBytesMax / 4), kTensorBytesMax / 4);
}

TEST_F(DataPlanes, WithoutKeysNoPeerIsDialledBeyondThisMachine) {
    const auto dialled = left_.dial("right", {"192.0.2.1", 5600}, 0);
    ASSERT_FALSE(dialled);
    EXPECT_EQ(dialled.error().code, ExitCode::kUsage);
    EXPECT_NE(dialled.error().message.find("192.0.2.1:5600 is not a loopback address"),
              std::string::npos)
        << dialled.error().message;
    left_.set_security({nullptr, true});
    EXPECT_TRUE(left_.dial("right", {"192.0.2.1", 5600}, 0));
}

// A device that stays dials again as soon as it has closed its socket.
TEST(MessageSockets, AreClosedAndMadeAgainAtOnce) {
    NetLoop loop;
    loop.call([&] {
        for (int time = 0; time < 200; ++time) {
            const auto socket = MessageSocket::dial(
                loop, {"127.0.0.1", 1}, [](const Incoming&) {},
                [](std::string_view, const Error&) {}, "");
            ASSERT_TRUE(socket) << socket.error().message;
        }
    });
}

// What a peer can make us hold while we are busy: the queue and what the kernel buffers.
TEST(MessageSockets, ABusyReceiverTakesNoMoreThanItsQueue) {
    constexpr std::size_t kMessageBytes = 512 << 10;
    // The kernel's buffer of a connection grows up to the last of three; one more is in ZeroMQ's
    // decoder, two may be on their way.
    std::ifstream limits("/proc/sys/net/ipv4/tcp_rmem");
    std::size_t least = 0;
    std::size_t usual = 0;
    std::size_t most = 0;
    ASSERT_TRUE(limits >> least >> usual >> most);
    const auto kernel_messages = static_cast<int>(most / kMessageBytes) + 3;
    NetLoop loop;
    std::unique_ptr<MessageSocket> socket = loop.call([&] {
        return MessageSocket::bind(
                   loop, {"127.0.0.1", 0}, [](const Incoming&) {},
                   [](std::string_view, const Error&) {}, "data")
            .value();
    });
    std::promise<void> go_on;
    loop.post([busy = go_on.get_future().share()] { busy.wait(); });
    zmq::context_t context;
    zmq::socket_t sender(context, zmq::socket_type::dealer);
    sender.set(zmq::sockopt::sndhwm, 1);
    sender.set(zmq::sockopt::sndbuf, 64 << 10);  // by itself the kernel takes up to tcp_wmem
    sender.set(zmq::sockopt::linger, 0);
    sender.connect("tcp://127.0.0.1:" + std::to_string(socket->port()));
    sender.set(zmq::sockopt::sndtimeo, 500);
    int taken = 0;
    while (sender.send(zmq::message_t(kMessageBytes), zmq::send_flags::none)) ++taken;
    EXPECT_GE(taken, kReceiveQueueMessages);
    EXPECT_LE(taken, kReceiveQueueMessages + kernel_messages);
    go_on.set_value();
    loop.call([&] { socket.reset(); });
}

bool has_ipv6() {
    const int descriptor = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_addr = IN6ADDR_LOOPBACK_INIT;
    const bool bound = descriptor >= 0 && ::bind(descriptor, reinterpret_cast<sockaddr*>(&address),
                                                 sizeof address) == 0;
    ::close(descriptor);
    return bound;
}

// Whatever kind of address the one end listens on, a name finds it; a name listens on all of its.
TEST(DataPlaneAddresses, NamesAndBothKindsOfAddressesMeet) {
    if (!has_ipv6()) GTEST_SKIP() << "this machine has no IPv6";
    const std::pair<const char*, const char*> meetings[] = {{"127.0.0.1", "127.0.0.1"},
                                                            {"::1", "::1"},
                                                            {"localhost", "127.0.0.1"},
                                                            {"localhost", "::1"},
                                                            {"127.0.0.1", "localhost"},
                                                            {"::1", "localhost"},
                                                            {"localhost", "localhost"},
                                                            {"*", "127.0.0.1"},
                                                            {"*", "::1"},
                                                            {"lo", "127.0.0.1"}};
    for (const auto& [listens, dials] : meetings) {
        SCOPED_TRACE(testing::Message() << listens << " is dialled as " << dials);
        NetLoop loop;
        Inbox<std::string> attached;
        DataPlane right(loop, "right", {[](Delivery) {}, [](const std::string&, std::uint64_t) {}});
        DataPlane left(loop, "left",
                       {[](Delivery) {},
                        [&](const std::string& peer, std::uint64_t) { attached.push(peer); }});
        const auto port = right.bind({listens, 0});
        ASSERT_TRUE(port) << port.error().message;
        right.set_run(kRun, 0);
        left.set_run(kRun, 0);
        ASSERT_TRUE(left.dial("right", {dials, *port}, 0));
        EXPECT_EQ(attached.pop_until(monotonic_now() + std::chrono::seconds(20)), "right");
    }
}

TEST(DataPlaneAddresses, APortThatIsTakenOnOneAddressOfANameIsRefused) {
    NetLoop loop;
    const auto nothing =
        DataPlane::Callbacks{[](Delivery) {}, [](const std::string&, std::uint64_t) {}};
    DataPlane first(loop, "first", nothing);
    DataPlane second(loop, "second", nothing);
    const auto port = first.bind({"127.0.0.1", 0});
    ASSERT_TRUE(port);
    const auto again = second.bind({"localhost", *port});
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().code, ExitCode::kUnreachable);
    EXPECT_NE(again.error().message.find("cannot listen: Address already in use"),
              std::string::npos)
        << again.error().message;
}

}  // namespace
}  // namespace ecopipe
