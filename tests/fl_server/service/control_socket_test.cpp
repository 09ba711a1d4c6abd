#include "fl_server/service/control_socket.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "tests/support/process.h"

namespace ecopipe::test {
namespace {

constexpr int kConnectionsMax = 64;
constexpr double kAnswerS = 10;

class ControlSockets : public testing::Test {
  protected:
    void SetUp() override {
        auto opened = ControlSocket::open(directory_ / "control.sock", Endpoint{"127.0.0.1", 0},
                                          [](const std::string& line) { return "did " + line; });
        ASSERT_TRUE(opened) << opened.error().message;
        control_ = std::move(*opened);
    }
    [[nodiscard]] int connect() const {
        const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(control_->metrics_port());
        EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
        const timeval patience{static_cast<time_t>(kAnswerS), 0};
        ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        return fd;
    }
    // What comes until the other end closes.
    static std::string rest(int fd) {
        std::string text;
        char part[4096];
        for (ssize_t n = 0; (n = ::recv(fd, part, sizeof part, 0)) > 0;)
            text.append(part, static_cast<std::size_t>(n));
        ::close(fd);
        return text;
    }
    [[nodiscard]] std::string get(const std::string& target) const {
        const int fd = connect();
        const std::string request = "GET " + target + " HTTP/1.1\r\nHost: here\r\n\r\n";
        ::send(fd, request.data(), request.size(), MSG_NOSIGNAL);
        return rest(fd);
    }

    TemporaryDirectory directory_;
    std::unique_ptr<ControlSocket> control_;
};

TEST_F(ControlSockets, TheMetricsAreTextOnOnePageAlone) {
    auto view = std::make_shared<FederationView>();
    view->version = 7;
    control_->publish(view);
    const std::string answer = get("/metrics");
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200")) << answer;
    EXPECT_NE(answer.find("ecopipe_version 7\n"), std::string::npos) << answer;
    EXPECT_TRUE(get("/").starts_with("HTTP/1.1 404"));
}

TEST_F(ControlSockets, AnOrderIsAnsweredAndOnlyTheOwnerMayGiveOne) {
    const std::string path = directory_ / "control.sock";
    const auto answer = ask_server(path, "pause", kAnswerS);
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(*answer, "did pause");
    struct stat facts{};
    ASSERT_EQ(::stat(path.c_str(), &facts), 0);
    EXPECT_EQ(facts.st_mode & 0777, 0600);
}

TEST_F(ControlSockets, SoManyMayBeSilentAndNotOneMore) {
    std::vector<int> silent;
    for (int i = 0; i < kConnectionsMax; ++i) silent.push_back(connect());
    EXPECT_EQ(get("/metrics"), "");
    ::close(silent.back());
    silent.pop_back();
    std::string answer;
    for (int time = 0; answer.empty() && time < 100; ++time) {
        answer = get("/metrics");
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200")) << answer;
    for (const int fd : silent) ::close(fd);
}

}  // namespace
}  // namespace ecopipe::test
