#include "fl_server/client/federation_link.h"

#include <gtest/gtest.h>

#include <functional>

#include "core/files.h"
#include "transport/net/net_loop.h"

namespace ecopipe {
namespace {

constexpr double kDeadlineS = 10;

// A server that answers as a test says, on its network thread.
class ScriptedServer {
  public:
    using Answer = std::function<void(MessageSocket& socket, const Incoming& message)>;
    explicit ScriptedServer(Answer answer) : answer_(std::move(answer)) {
        loop_.call([this] {
            auto bound = MessageSocket::bind(
                loop_, {"127.0.0.1", 0},
                [this](const Incoming& message) { answer_(*socket_, message); },
                [](std::string_view, const Error&) {}, "federation");
            ASSERT_TRUE(bound) << bound.error().message;
            socket_ = std::move(*bound);
        });
    }
    ScriptedServer(const ScriptedServer&) = delete;
    ScriptedServer& operator=(const ScriptedServer&) = delete;
    ~ScriptedServer() {
        loop_.call([this] { socket_.reset(); });
    }
    [[nodiscard]] Endpoint address() { return {"127.0.0.1", socket_->port()}; }
    // Between two messages.
    void change(const std::function<void()>& what) { loop_.call(what); }

  private:
    NetLoop loop_;
    Answer answer_;
    std::unique_ptr<MessageSocket> socket_;
};

MessageType type_of(const Incoming& message) {
    return static_cast<MessageType>(message.header.type);
}

template <class Body>
void send(MessageSocket& socket, const Incoming& to, const Body& body) {
    EXPECT_TRUE(socket.send(std::string(to.from), {}, body));
}

ClusterHello plain_hello() {
    ClusterHello hello;
    hello.cluster = "home";
    return hello;
}

Task empty_task(std::uint64_t sequence, std::uint64_t epoch) {
    Task task;
    task.sequence = sequence;
    task.epoch = epoch;
    task.sha256 = sha256_hex("");
    return task;
}

OutgoingSlice empty_update(const Task& task) {
    OutgoingSlice slice;
    slice.announcement.sequence = task.sequence;
    slice.announcement.epoch = task.epoch;
    slice.announcement.sha256 = sha256_hex("");
    return slice;
}

Result<Verdict> push(FederationLink& link, const Task& task) {
    return link.push_update({empty_update(task)}, std::make_shared<const std::string>());
}

// It sends its one task twice, as it does when a Hello comes while the task is under way, and ends
// instead of taking the update.
TEST(FederationLink, TheEndComesBeforeTasksThatWaited) {
    ScriptedServer server([](MessageSocket& socket, const Incoming& message) {
        if (type_of(message) == MessageType::kClusterHello) {
            send(socket, message, ClusterWelcome{1000, 10000, {}, 1});
            for (int time = 0; time < 2; ++time) send(socket, message, empty_task(1, 1));
        } else if (type_of(message) == MessageType::kUpdateSlice) {
            send(socket, message, FederationEnd{});
        }
    });
    NetLoop loop;
    FederationLink link(loop);
    const auto welcome = link.join(server.address(), "", plain_hello(), kDeadlineS);
    ASSERT_TRUE(welcome) << welcome.error().message;
    link.set_patience(kDeadlineS);
    const auto task = link.next_task();
    ASSERT_TRUE(task) << task.error().message;
    ASSERT_TRUE(*task);
    const auto verdict = push(link, **task);
    ASSERT_TRUE(verdict) << verdict.error().message;
    EXPECT_EQ(verdict->reason, "the federation has ended");
    const auto next = link.next_task();
    ASSERT_TRUE(next) << next.error().message;
    EXPECT_FALSE(*next) << "the task that came twice";
}

// A server whose state is restored has tasks of numbers that this cluster has answered in its life
// before, and knows nothing of those under way.
TEST(FederationLink, WhatBelongsToAStateBeforeItWasRestoredIsForgotten) {
    std::uint64_t epoch = 7;
    ScriptedServer server([&](MessageSocket& socket, const Incoming& message) {
        if (type_of(message) == MessageType::kClusterHello) {
            send(socket, message, ClusterWelcome{1000, 10000, {}, epoch});
            send(socket, message, empty_task(9, 7));  // of before, wherever it was held up
            if (epoch == 8) send(socket, message, empty_task(3, 8));
        } else if (const auto slice = decode<UpdateSlice>(message.body);
                   type_of(message) == MessageType::kUpdateSlice && slice) {
            if (slice->sequence == 9) send(socket, message, Verdict{9, true, ""});
            if (slice->sequence == 9) send(socket, message, empty_task(10, 7));
            if (slice->sequence != 10) return;
            epoch = 8;
            send(socket, message, ClusterWelcome{1000, 10000, {}, 8});
            send(socket, message, Verdict{10, false, "its task is of before"});
            send(socket, message, empty_task(3, 8));
        }
    });
    NetLoop loop;
    FederationLink link(loop);
    ASSERT_TRUE(link.join(server.address(), "", plain_hello(), kDeadlineS));
    link.set_patience(kDeadlineS);
    for (const std::uint64_t number : {std::uint64_t{9}, std::uint64_t{10}}) {
        const auto task = link.next_task();
        ASSERT_TRUE(task) << task.error().message;
        ASSERT_TRUE(*task);
        EXPECT_EQ((*task)->sequence, number);
        const auto verdict = push(link, **task);
        ASSERT_TRUE(verdict) << verdict.error().message;
        EXPECT_EQ(verdict->accepted, number == 9);
        EXPECT_EQ(verdict->reason, number == 9 ? "" : "the federation's state was restored since");
    }
    const auto task = link.next_task();
    ASSERT_TRUE(task) << task.error().message;
    ASSERT_TRUE(*task);
    EXPECT_EQ((*task)->sequence, 3U);
    EXPECT_EQ((*task)->epoch, 8U);
}

TEST(FederationLink, AModelOfAStateBeforeItWasRestoredIsNotWaitedFor) {
    std::uint64_t epoch = 7;
    const auto task = [](std::uint64_t of) {
        Task made = empty_task(of, of);
        made.tensors = {{"w", DType::kF32, {4}}};
        return made;
    };
    ScriptedServer server([&](MessageSocket& socket, const Incoming& message) {
        if (type_of(message) == MessageType::kModelRequest) epoch = 8;
        send(socket, message, ClusterWelcome{1000, 10000, {}, epoch});
        send(socket, message, task(epoch));
    });
    NetLoop loop;
    FederationLink link(loop);
    ASSERT_TRUE(link.join(server.address(), "", plain_hello(), kDeadlineS));
    link.set_patience(kDeadlineS);
    const auto first = link.next_task();
    ASSERT_TRUE(first && *first);
    const auto model = link.pull_model(**first);
    ASSERT_TRUE(model) << model.error().message;
    EXPECT_FALSE(*model);
    const auto next = link.next_task();
    ASSERT_TRUE(next && *next);
    EXPECT_EQ((*next)->epoch, 8U);
}

// The server has let go of the task and of its version, which nobody will send any more.
TEST(FederationLink, ANewerTaskEndsTheWaitForTheModelOfTheOneBefore) {
    ScriptedServer server([&](MessageSocket& socket, const Incoming& message) {
        if (type_of(message) == MessageType::kClusterHello)
            send(socket, message, ClusterWelcome{1000, 10000, {}, 7});
        if (type_of(message) == MessageType::kClusterHello ||
            type_of(message) == MessageType::kModelRequest) {
            Task task = empty_task(type_of(message) == MessageType::kModelRequest ? 2 : 1, 7);
            task.tensors = {{"w", DType::kF32, {4}}};
            send(socket, message, task);
        }
    });
    NetLoop loop;
    FederationLink link(loop);
    ASSERT_TRUE(link.join(server.address(), "", plain_hello(), kDeadlineS));
    link.set_patience(kDeadlineS);
    const auto first = link.next_task();
    ASSERT_TRUE(first && *first);
    EXPECT_EQ((*first)->sequence, 1U);
    const auto model = link.pull_model(**first);
    ASSERT_TRUE(model) << model.error().message;
    EXPECT_FALSE(*model);
    const auto next = link.next_task();
    ASSERT_TRUE(next && *next);
    EXPECT_EQ((*next)->sequence, 2U);
}

// Says "not now" so many times before its welcome.
ScriptedServer::Answer busy_for(int& refusals) {
    return [&refusals](MessageSocket& socket, const Incoming& message) {
        if (refusals-- > 0)
            send(socket, message, Refuse{4, "the name is taken"});
        else
            send(socket, message, ClusterWelcome{1000, 10000, {}, 1});
    };
}

TEST(FederationLink, WhatIsRefusedForNowIsAskedForAgain) {
    int refusals = 2;
    ScriptedServer server(busy_for(refusals));
    NetLoop loop;
    FederationLink link(loop);
    const auto welcome = link.join(server.address(), "", plain_hello(), kDeadlineS);
    ASSERT_TRUE(welcome) << welcome.error().message;
    server.change([&] { EXPECT_LT(refusals, 0); });
}

TEST(FederationLink, WhoIsRefusedForNowUntilItsPatienceEndsSaysWhy) {
    int refusals = 1'000'000;
    ScriptedServer server(busy_for(refusals));
    NetLoop loop;
    FederationLink link(loop);
    const auto welcome = link.join(server.address(), "", plain_hello(), 3);
    ASSERT_FALSE(welcome);
    EXPECT_EQ(welcome.error().code, ExitCode::kUnreachable);
    EXPECT_NE(welcome.error().message.find("has not taken this cluster for 3 s: the name is taken"),
              std::string::npos)
        << welcome.error().message;
}

// Has a list of classes, which a test may change.
ScriptedServer::Answer listing(std::vector<std::string>& list) {
    return [&list](MessageSocket& socket, const Incoming& message) {
        const auto hello = decode<ClusterHello>(message.body);
        if (!hello) return;
        if (hello->classes_sha256 == classes_hash(list))
            send(socket, message, ClusterWelcome{10, 100, {}, 1});
        else
            send(socket, message, ClassList{list});
    };
}

ClusterHello hello_with(const std::vector<std::string>& classes) {
    ClusterHello hello;
    hello.cluster = "home";
    hello.class_count = static_cast<std::uint32_t>(classes.size());
    hello.classes = classes;
    hello.classes_sha256 = classes_hash(classes);
    return hello;
}

TEST(FederationLink, AnotherListOfClassesIsMappedToTheServers) {
    std::vector<std::string> listed{"ant", "bee", "cow"};
    ScriptedServer server(listing(listed));
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
    server.change([&] { listed = {"cow"}; });
    const auto task = link.next_task();
    ASSERT_FALSE(task);
    EXPECT_NE(task.error().message.find("another list of classes than when this cluster joined"),
              std::string::npos)
        << task.error().message;
}

TEST(FederationLink, ClassesThatCannotBeMappedEndTheCall) {
    std::vector<std::string> listed{"ant", "bee", "cow"};
    ScriptedServer server(listing(listed));
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
