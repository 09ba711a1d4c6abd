#include "orchestrator/federation_link.h"

#include <gtest/gtest.h>

#include "core/files.h"
#include "transport/net_loop.h"

namespace ecopipe {
namespace {

constexpr double kDeadlineS = 10;

// A server that sends its one task twice, as it does when a Hello comes while the task is under
// way, and ends instead of taking the update.
class EndingServer {
  public:
    EndingServer() {
        loop_.call([this] {
            auto bound = MessageSocket::bind(
                loop_, {"127.0.0.1", 0}, [this](const Incoming& message) { answer(message); },
                [](std::string_view, const Error&) {}, "federation");
            ASSERT_TRUE(bound) << bound.error().message;
            socket_ = std::move(*bound);
        });
    }
    EndingServer(const EndingServer&) = delete;
    EndingServer& operator=(const EndingServer&) = delete;
    ~EndingServer() {
        loop_.call([this] { socket_.reset(); });
    }
    [[nodiscard]] Endpoint address() { return {"127.0.0.1", socket_->port()}; }

  private:
    void answer(const Incoming& message) {
        const std::string to(message.from);
        const auto type = static_cast<MessageType>(message.header.type);
        if (type == MessageType::kClusterHello) {
            EXPECT_TRUE(socket_->send(to, {}, ClusterWelcome{1000, 10000, {}}));
            Task task;
            task.sequence = 1;
            task.sha256 = sha256_hex("");
            for (int time = 0; time < 2; ++time) EXPECT_TRUE(socket_->send(to, {}, task));
        } else if (type == MessageType::kUpdateSlice) {
            EXPECT_TRUE(socket_->send(to, {}, FederationEnd{}));
        }
    }

    NetLoop loop_;
    std::unique_ptr<MessageSocket> socket_;
};

TEST(FederationLink, TheEndComesBeforeTasksThatWaited) {
    EndingServer server;
    NetLoop loop;
    FederationLink link(loop);
    ClusterHello hello;
    hello.cluster = "home";
    const auto welcome = link.join(server.address(), "", hello, kDeadlineS);
    ASSERT_TRUE(welcome) << welcome.error().message;
    link.set_patience(kDeadlineS);
    const auto task = link.next_task();
    ASSERT_TRUE(task) << task.error().message;
    ASSERT_TRUE(*task);
    OutgoingSlice slice;
    slice.announcement.sequence = (*task)->sequence;
    slice.announcement.sha256 = sha256_hex("");
    const auto verdict = link.push_update({slice}, std::make_shared<const std::string>());
    ASSERT_TRUE(verdict) << verdict.error().message;
    EXPECT_EQ(verdict->reason, "the federation has ended");
    const auto next = link.next_task();
    ASSERT_TRUE(next) << next.error().message;
    EXPECT_FALSE(*next) << "the task that came twice";
}

// A server that says "not now" so many times before its welcome.
class BusyServer {
  public:
    explicit BusyServer(int refusals) : refusals_(refusals) {
        loop_.call([this] {
            auto bound = MessageSocket::bind(
                loop_, {"127.0.0.1", 0}, [this](const Incoming& message) { answer(message); },
                [](std::string_view, const Error&) {}, "federation");
            ASSERT_TRUE(bound) << bound.error().message;
            socket_ = std::move(*bound);
        });
    }
    BusyServer(const BusyServer&) = delete;
    BusyServer& operator=(const BusyServer&) = delete;
    ~BusyServer() {
        loop_.call([this] { socket_.reset(); });
    }
    [[nodiscard]] Endpoint address() { return {"127.0.0.1", socket_->port()}; }
    [[nodiscard]] int refusals() {
        return loop_.call([this] { return refusals_; });
    }

  private:
    void answer(const Incoming& message) {
        const std::string to(message.from);
        if (refusals_-- > 0)
            EXPECT_TRUE(socket_->send(to, {}, Refuse{4, "the name is taken"}));
        else
            EXPECT_TRUE(socket_->send(to, {}, ClusterWelcome{1000, 10000, {}}));
    }

    NetLoop loop_;
    int refusals_;
    std::unique_ptr<MessageSocket> socket_;
};

TEST(FederationLink, WhatIsRefusedForNowIsAskedForAgain) {
    BusyServer server(2);
    NetLoop loop;
    FederationLink link(loop);
    ClusterHello hello;
    hello.cluster = "home";
    const auto welcome = link.join(server.address(), "", hello, kDeadlineS);
    ASSERT_TRUE(welcome) << welcome.error().message;
    EXPECT_LT(server.refusals(), 0);
}

TEST(FederationLink, WhoIsRefusedForNowUntilItsPatienceEndsSaysWhy) {
    BusyServer server(1'000'000);
    NetLoop loop;
    FederationLink link(loop);
    ClusterHello hello;
    hello.cluster = "home";
    const auto welcome = link.join(server.address(), "", hello, 3);
    ASSERT_FALSE(welcome);
    EXPECT_EQ(welcome.error().code, ExitCode::kUnreachable);
    EXPECT_NE(welcome.error().message.find("has not taken this cluster for 3 s: the name is taken"),
              std::string::npos)
        << welcome.error().message;
}

// A server with a list of classes, which changes when it is told to.
class ListingServer {
  public:
    ListingServer() {
        loop_.call([this] {
            auto bound = MessageSocket::bind(
                loop_, {"127.0.0.1", 0}, [this](const Incoming& message) { answer(message); },
                [](std::string_view, const Error&) {}, "federation");
            ASSERT_TRUE(bound) << bound.error().message;
            socket_ = std::move(*bound);
        });
    }
    ListingServer(const ListingServer&) = delete;
    ListingServer& operator=(const ListingServer&) = delete;
    ~ListingServer() {
        loop_.call([this] { socket_.reset(); });
    }
    [[nodiscard]] Endpoint address() { return {"127.0.0.1", socket_->port()}; }
    void change() {
        loop_.call([this] { list_ = {"cow"}; });
    }

  private:
    void answer(const Incoming& message) {
        const auto hello = decode<ClusterHello>(message.body);
        if (!hello) return;
        const std::string to(message.from);
        if (hello->classes_sha256 == classes_hash(list_))
            EXPECT_TRUE(socket_->send(to, {}, ClusterWelcome{10, 100, {}}));
        else
            EXPECT_TRUE(socket_->send(to, {}, ClassList{list_}));
    }

    NetLoop loop_;
    std::vector<std::string> list_{"ant", "bee", "cow"};
    std::unique_ptr<MessageSocket> socket_;
};

ClusterHello hello_with(const std::vector<std::string>& classes) {
    ClusterHello hello;
    hello.cluster = "home";
    hello.class_count = static_cast<std::uint32_t>(classes.size());
    hello.classes = classes;
    hello.classes_sha256 = classes_hash(classes);
    return hello;
}

TEST(FederationLink, AnotherListOfClassesIsMappedToTheServers) {
    ListingServer server;
    NetLoop loop;
    FederationLink link(loop);
    std::vector<std::string> mapped;
    const auto welcome = link.join(server.address(), "", hello_with({"bee", "cow"}), kDeadlineS,
                                   [&](const std::vector<std::string>& list) {
                                       mapped = list;
                                       return Result<ClusterHello>(hello_with(list));
                                   });
    ASSERT_TRUE(welcome) << welcome.error().message;
    EXPECT_EQ(mapped, (std::vector<std::string>{"ant", "bee", "cow"}));
    // A list that changes under a cluster that trains cannot be mapped any more.
    link.set_patience(kDeadlineS);
    server.change();
    const auto task = link.next_task();
    ASSERT_FALSE(task);
    EXPECT_NE(task.error().message.find("another list of classes than when this cluster joined"),
              std::string::npos)
        << task.error().message;
}

TEST(FederationLink, ClassesThatCannotBeMappedEndTheCall) {
    ListingServer server;
    NetLoop loop;
    FederationLink link(loop);
    const auto welcome = link.join(server.address(), "", hello_with({"emu"}), kDeadlineS,
                                   [](const std::vector<std::string>&) -> Result<ClusterHello> {
                                       return fail(ExitCode::kUsage, "emu is not among them");
                                   });
    ASSERT_FALSE(welcome);
    EXPECT_EQ(welcome.error().code, ExitCode::kUsage);
}

}  // namespace
}  // namespace ecopipe
