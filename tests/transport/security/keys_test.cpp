// Key files, the ring of keys, and what a network of sockets lets in.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "core/inbox.h"
#include "tests/support/process.h"
#include "transport/net/message_socket.h"
#include "transport/net/zap_handler.h"
#include "transport/security/key_ring.h"
#include "transport/wire/messages.h"

namespace ecopipe {
namespace {

class Keys : public testing::Test {
  protected:
    // A directory with keys of `name`.
    std::string make(const std::string& name) {
        const std::string directory = root_ / name;
        EXPECT_TRUE(create_keys(directory, name));
        return directory;
    }
    // `who` allows `peer`, under that name or another.
    void allow(const std::string& who, const std::string& peer, std::string as = {}) {
        if (as.empty()) as = peer;
        test::write(root_ / (who + "/allowed/" + as + ".public"),
                    test::read(root_ / (peer + "/own.public")));
    }
    std::string problem(const std::string& directory) {
        const auto ring = KeyRing::open(directory);
        return ring ? "" : ring.error().message;
    }
    test::TemporaryDirectory root_;
};

TEST_F(Keys, FilesAreReadBackAndNeverOverwritten) {
    const std::string directory = make("hub");
    struct stat info{};
    ASSERT_EQ(::stat((directory + "/own.secret").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0600U);
    ASSERT_EQ(::stat(directory.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0700U);
    const auto ring = KeyRing::open(directory);
    ASSERT_TRUE(ring) << ring.error().message;
    EXPECT_EQ(ring->own().name, "hub");
    const auto key = parse_public_key(test::read(directory + "/own.public"), "here");
    ASSERT_TRUE(key);
    EXPECT_EQ(*key, ring->own().public_key);
    const std::string before = test::read(directory + "/own.secret");
    const auto again = create_keys(directory, "hub");
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().code, ExitCode::kUsage);
    EXPECT_EQ(test::read(directory + "/own.secret"), before);
}

TEST_F(Keys, NamesThatCannotBeFilesAreRefused) {
    for (const char* name : {"", ".", "..", "a/b", "a b", "@portal", "-x", "a\nb"})
        EXPECT_NE(check_key_name(name), "") << name;
    EXPECT_EQ(check_key_name(std::string(128, 'x')), "");
    EXPECT_NE(check_key_name(std::string(129, 'x')), "");
    EXPECT_FALSE(create_keys(root_ / "x", "../x"));
}

TEST_F(Keys, WhatOthersCanReadIsRefused) {
    const std::string directory = make("hub");
    make("pi");
    allow("hub", "pi");
    EXPECT_EQ(problem(directory), "");
    ::chmod((directory + "/own.secret").c_str(), 0640);
    EXPECT_NE(problem(directory).find("own.secret: others may read it"), std::string::npos);
    ::chmod((directory + "/own.secret").c_str(), 0600);
    ::chmod(directory.c_str(), 0755);
    EXPECT_NE(problem(directory).find("hub: others may read it"), std::string::npos);
    ::chmod(directory.c_str(), 0700);
    ::chmod((directory + "/allowed/pi.public").c_str(), 0666);
    EXPECT_NE(problem(directory).find("pi.public: others may change it"), std::string::npos);
    ::chmod((directory + "/allowed/pi.public").c_str(), 0644);
    ::chmod((directory + "/allowed").c_str(), 0777);
    EXPECT_NE(problem(directory).find("allowed: others may change it"), std::string::npos);
}

TEST_F(Keys, BadFilesAreNamedAndNeverQuoted) {
    const std::string directory = make("hub");
    make("pi");
    const std::string secret = test::read(directory + "/own.secret");
    const std::string value = secret.substr(secret.find("secret: ") + 8, 40);
    const auto with = [&](const std::string& text) {
        test::write(directory + "/own.secret", text);
        const std::string found = problem(directory);
        EXPECT_NE(found, "") << text;
        EXPECT_EQ(found.find(value), std::string::npos);
        return found;
    };
    with("");
    with("ecopipe-secret-key/1\n");
    with(secret.substr(0, secret.size() - 2));
    with(secret + "more\n");
    std::string other = secret;
    other[other.size() - 3] = other[other.size() - 3] == '0' ? '1' : '0';
    EXPECT_NE(with(other).find("expected the secret key of its public key"), std::string::npos);
    with(std::string(5000, 'x'));
    const auto newer = parse_secret_key("ecopipe-secret-key/2\n" + secret.substr(21), "f");
    ASSERT_FALSE(newer);
    EXPECT_EQ(newer.error().code, ExitCode::kMismatch);
    test::write(directory + "/own.secret", secret);
    EXPECT_EQ(problem(directory), "");
    test::write(directory + "/allowed/pi.public", secret);  // the wrong file was copied
    EXPECT_NE(problem(directory), "");
    EXPECT_EQ(problem(directory).find(value), std::string::npos);
    allow("hub", "pi");
    allow("hub", "pi", "phone");
    EXPECT_NE(problem(directory).find("has the same key as phone"), std::string::npos);
}

TEST_F(Keys, EnrolmentRemovalAndReplacementActWithoutARestart) {
    const std::string directory = make("hub");
    make("pi");
    make("other");
    auto ring = KeyRing::open(directory);
    ASSERT_TRUE(ring);
    EXPECT_TRUE(ring->refresh().empty());
    const auto pi = parse_public_key(test::read(root_ / "pi/own.public"), "pi");
    EXPECT_FALSE(ring->identify(*pi));
    allow("hub", "pi");
    EXPECT_TRUE(ring->refresh().empty());
    EXPECT_EQ(ring->identify(*pi), "pi");
    EXPECT_TRUE(ring->admits("pi", pi->fingerprint()));
    EXPECT_FALSE(ring->admits("other", pi->fingerprint()));
    allow("hub", "other", "pi");  // a new key under the old name
    EXPECT_EQ(ring->refresh(), std::set<std::string>{"pi"});
    EXPECT_FALSE(ring->identify(*pi));
    EXPECT_FALSE(ring->admits("pi", pi->fingerprint()));
    std::filesystem::remove(directory + "/allowed/pi.public");
    EXPECT_EQ(ring->refresh(), std::set<std::string>{"pi"});
    EXPECT_TRUE(ring->allowed().empty());
    allow("hub", "pi");
    EXPECT_TRUE(ring->refresh().empty());
    std::filesystem::remove_all(directory + "/allowed");  // fails closed
    EXPECT_EQ(ring->refresh(), std::set<std::string>{"pi"});
}

TEST_F(Keys, IntroducedPeersComeAndGoAndFilesCountFirst) {
    const std::string directory = make("hub");
    make("pi");
    make("phone");
    allow("hub", "pi");
    auto ring = KeyRing::open(directory);
    ASSERT_TRUE(ring);
    const auto key = [&](const std::string& name) {
        return *parse_public_key(test::read(root_ / (name + "/own.public")), name);
    };
    EXPECT_TRUE(ring->introduce({{"phone", key("phone")}}).empty());
    EXPECT_EQ(ring->identify(key("phone")), "phone");
    EXPECT_EQ(ring->introduce({}), std::set<std::string>{"phone"});
    EXPECT_FALSE(ring->identify(key("phone")));
    // The portal cannot replace what the file says.
    EXPECT_TRUE(ring->introduce({{"pi", key("phone")}}).empty());
    EXPECT_EQ(ring->find("pi"), key("pi"));
    EXPECT_FALSE(ring->identify(key("phone")));
}

// Two machines: `listener_` listens as a control port, `dialler_` dials it.
class KeyedSockets : public Keys {
  protected:
    static constexpr auto kPatience = std::chrono::seconds(10);
    static constexpr auto kQuiet = std::chrono::milliseconds(400);

    ~KeyedSockets() override {
        listener_loop_.call([this] { listener_.reset(); });
        dialler_loop_.call([this] { dialler_.reset(); });
    }
    void listen(const std::string& keys, std::string_view port = "control") {
        if (!keys.empty()) use_keys(listener_loop_, ring(keys));
        listener_loop_.call([&] {
            auto bound = MessageSocket::bind(
                listener_loop_, {"127.0.0.1", 0},
                [this](const Incoming& message) { froms_.push(std::string(message.from)); },
                [](std::string_view, const Error&) {}, port);
            if (bound) listener_ = std::move(*bound);
        });
        ASSERT_TRUE(listener_);
    }
    // Dials `peer` and says a word every 20 ms.
    void dial(const std::string& keys, const std::string& peer) {
        if (!keys.empty()) use_keys(dialler_loop_, ring(keys));
        dialler_loop_.call([&] {
            auto dialled = MessageSocket::dial(
                dialler_loop_, {"127.0.0.1", listener_->port()}, [](const Incoming&) {},
                [this](std::string_view, const Error& error) { errors_.push(error); }, peer);
            if (dialled) dialler_ = std::move(*dialled);
        });
        ASSERT_TRUE(dialler_);
        speak();
    }
    void speak() {
        dialler_loop_.post([this] {
            if (dialler_) static_cast<void>(dialler_->send("", {}, Ping{}));
            dialler_loop_.at(monotonic_now() + std::chrono::milliseconds(20), lifeline_,
                             [this] { speak(); });
        });
    }
    std::optional<std::string> heard() { return froms_.pop_until(monotonic_now() + kPatience); }
    bool silent() {
        while (froms_.pop_until(monotonic_now())) {
        }
        return !froms_.pop_until(monotonic_now() + kQuiet);
    }
    std::string error() {
        const auto error = errors_.pop_until(monotonic_now() + kPatience);
        if (!error) return "none";
        EXPECT_EQ(error->code, ExitCode::kMismatch);
        return error->message;
    }
    static std::shared_ptr<KeyRing> ring(const std::string& directory) {
        auto ring = KeyRing::open(directory);
        EXPECT_TRUE(ring) << ring.error().message;
        return std::make_shared<KeyRing>(std::move(*ring));
    }
    NetLoop listener_loop_;
    NetLoop dialler_loop_;
    std::unique_ptr<MessageSocket> listener_;
    std::unique_ptr<MessageSocket> dialler_;
    Inbox<std::string> froms_;
    Inbox<Error> errors_;
    Lifeline lifeline_ = make_lifeline();
};

TEST_F(KeyedSockets, AnAllowedPeerIsKnownByItsFilesName) {
    const std::string hub = make("hub");
    const std::string pi = make("pi");
    allow("hub", "pi", "kitchen");
    allow("pi", "hub");
    listen(hub);
    dial(pi, "hub");
    const auto from = heard();
    ASSERT_TRUE(from);
    EXPECT_TRUE(speaks_for(*from, "kitchen"));
    EXPECT_FALSE(speaks_for(*from, "pi"));
    EXPECT_FALSE(is_own(*from));
}

TEST_F(KeyedSockets, ThisMachinesOwnKeySpeaksUnderAnyName) {
    const std::string hub = make("hub");
    listen(hub);
    dial(hub, "hub");
    const auto from = heard();
    ASSERT_TRUE(from);
    EXPECT_TRUE(is_own(*from));
    EXPECT_TRUE(speaks_for(*from, "anything"));
}

TEST_F(KeyedSockets, AKeyThatIsNotAllowedIsRefused) {
    const std::string hub = make("hub");
    const std::string pi = make("pi");
    allow("pi", "hub");
    listen(hub);
    dial(pi, "hub");
    EXPECT_NE(error().find("does not allow this machine's key"), std::string::npos);
    EXPECT_TRUE(silent());
}

TEST_F(KeyedSockets, AnotherServerThanTheOneExpectedIsNoticed) {
    const std::string hub = make("hub");
    const std::string pi = make("pi");
    make("else");
    allow("hub", "pi");
    allow("pi", "else", "hub");
    listen(hub);
    dial(pi, "hub");
    EXPECT_NE(error().find("its key is not that of hub"), std::string::npos);
    EXPECT_TRUE(silent());
}

TEST_F(KeyedSockets, WithoutKeysNobodyGetsIn) {
    const std::string hub = make("hub");
    listen(hub);
    dial("", "");
    EXPECT_EQ(error(), "wants keys: give --keys DIR");
    EXPECT_TRUE(silent());
}

TEST_F(KeyedSockets, AKeyedPeerDoesNotTalkToAnOpenServer) {
    make("hub");
    const std::string pi = make("pi");
    allow("pi", "hub");
    listen("");
    dial(pi, "hub");
    EXPECT_EQ(error(), "talks without keys, this program with them");
    EXPECT_TRUE(silent());
}

TEST_F(KeyedSockets, ARemovedKeyIsCutOffAtOnceAndComesBackWhenEnrolledAgain) {
    const std::string hub = make("hub");
    const std::string pi = make("pi");
    allow("hub", "pi");
    allow("pi", "hub");
    listen(hub, "data");  // where a stranger is told to come again
    dial(pi, "hub");
    ASSERT_TRUE(heard());
    std::filesystem::remove(hub + "/allowed/pi.public");
    const Instant deadline = monotonic_now() + std::chrono::seconds(10);
    while (monotonic_now() < deadline && !silent()) {
    }
    EXPECT_TRUE(silent());
    allow("hub", "pi");
    EXPECT_TRUE(heard());
}

TEST_F(KeyedSockets, ADialledPeerWhoseKeyIsRemovedIsLeft) {
    const std::string hub = make("hub");
    const std::string pi = make("pi");
    allow("hub", "pi");
    allow("pi", "hub");
    listen(hub);
    dial(pi, "hub");
    ASSERT_TRUE(heard());
    std::filesystem::remove(pi + "/allowed/hub.public");
    EXPECT_EQ(error(), "the key of hub is no longer allowed");
    EXPECT_TRUE(silent());
}

// Without a handler libzmq lets everybody in unless the domain is enforced.
TEST_F(KeyedSockets, FailsClosedWithoutItsHandler) {
    const std::string hub = make("hub");
    const std::string pi = make("pi");
    allow("hub", "pi");
    allow("pi", "hub");
    listen(hub);
    listener_loop_.admit_nobody();
    dial(pi, "hub");
    EXPECT_TRUE(silent());
}

}  // namespace
}  // namespace ecopipe
