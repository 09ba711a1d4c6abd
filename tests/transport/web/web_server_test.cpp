// The page's server against those who mean it ill, over real sockets on loopback.
#include "transport/web/web_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "core/clock.h"
#include "transport/web/web_page.h"

namespace ecopipe {
namespace {

class Client {
  public:
    explicit Client(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
        timeval patience{10, 0};
        ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    }
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;
    ~Client() { ::close(fd_); }
    [[nodiscard]] bool connected() const { return connected_; }
    bool send(const std::string& text) const {
        return ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL) ==
               static_cast<ssize_t>(text.size());
    }
    // Until the peer closes, or nothing came for ten seconds.
    std::string read_all() const {
        std::string all;
        char part[4096];
        for (ssize_t n; (n = ::recv(fd_, part, sizeof part, 0)) > 0;)
            all.append(part, static_cast<std::size_t>(n));
        return all;
    }

  private:
    int fd_;
    bool connected_ = false;
};

class Web : public testing::Test {
  protected:
    static constexpr std::chrono::milliseconds kLong = std::chrono::hours(1);

    void SetUp() override { start({}); }
    void start(WebLimits limits) {
        auto routes = web_page_routes([this] { return document_; },
                                      [this] { return std::to_string(revision_); });
        auto started = WebServer::start({"127.0.0.1", 0}, std::move(routes), limits);
        ASSERT_TRUE(started) << started.error().message;
        server_ = std::move(*started);
    }
    std::string ask(const std::string& request) {
        const Client client(server_->bound().port);
        EXPECT_TRUE(client.connected());
        client.send(request);
        return client.read_all();
    }
    std::string get(const std::string& target, const std::string& more = "",
                    const std::string& host = "127.0.0.1") {
        return ask("GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n" +
                   more + "\r\n");
    }
    std::string document_ = "{\"kind\":\"training\"}";
    std::atomic<int> revision_{1};
    std::unique_ptr<WebServer> server_;
};

TEST_F(Web, ServesThePageUnderItsPolicy) {
    const std::string reply = get("/");
    EXPECT_TRUE(reply.starts_with("HTTP/1.1 200 OK")) << reply.substr(0, 200);
    EXPECT_NE(reply.find("default-src 'none'; script-src 'sha256-"), std::string::npos);
    EXPECT_NE(reply.find("X-Content-Type-Options: nosniff"), std::string::npos);
    EXPECT_NE(reply.find("<!doctype html>"), std::string::npos);
    const std::string html(web_page_html());
    EXPECT_EQ(html.find("http://"), html.find("http://www.w3.org/2000/svg"))
        << "everything comes from the program";
    EXPECT_EQ(html.find("https://"), std::string::npos);
    EXPECT_EQ(html.find("<script", html.find("<script>") + 1), std::string::npos)
        << "the policy knows one script";
    EXPECT_EQ(html.find("style=\""), std::string::npos) << "the policy forbids it";
}

TEST_F(Web, SaysWhenNothingChanged) {
    const std::string first = get("/view.json");
    EXPECT_NE(first.find("\r\n\r\n{\"kind\":\"training\"}"), std::string::npos) << first;
    const std::size_t at = first.find("ETag: ");
    ASSERT_NE(at, std::string::npos);
    const std::string tag = first.substr(at + 6, first.find('\r', at) - at - 6);
    EXPECT_TRUE(get("/view.json", "If-None-Match: " + tag + "\r\n").starts_with("HTTP/1.1 304"));
    ++revision_;
    EXPECT_TRUE(get("/view.json", "If-None-Match: " + tag + "\r\n").starts_with("HTTP/1.1 200"));
}

TEST_F(Web, ReadsOnlyAndOnlyWhatIsThere) {
    for (const char* method : {"POST", "PUT", "DELETE", "HEAD", "OPTIONS"})
        EXPECT_TRUE(
            ask(std::string(method) + " / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .starts_with("HTTP/1.1 405"))
            << method;
    for (const char* target : {"/metrics.jsonl", "/../etc/passwd", "//", "/view.json?x=1", "*"})
        EXPECT_TRUE(get(target).starts_with("HTTP/1.1 404")) << target;
    EXPECT_TRUE(ask("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")
                    .starts_with("HTTP/1.1 400"));
}

// A web site of an attacker whose name is pointed at this machine is the same origin to a browser.
TEST_F(Web, AnswersAddressesAndNotNames) {
    for (const char* host :
         {"127.0.0.1", "127.0.0.1:1234", "localhost:80", "[::1]:80", "192.168.1.10"})
        EXPECT_TRUE(get("/", "", host).starts_with("HTTP/1.1 200")) << host;
    for (const char* host : {"evil.example", "evil.example:80", "localhost.evil.example", "", "[",
                             "127.0.0.1.evil.example"})
        EXPECT_TRUE(get("/", "", host).starts_with("HTTP/1.1 403")) << host;
    EXPECT_TRUE(ask("GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 403")) << "no Host at all";
    EXPECT_TRUE(get("/", "Host: evil.example\r\n").starts_with("HTTP/1.1 403")) << "two of them";
    EXPECT_TRUE(host_header_allowed("hub.lan:8080", "hub.lan"));
}

TEST_F(Web, NonsenseIsAnsweredAndClosed) {
    for (const std::string& nonsense :
         {std::string("\x16\x03\x01\x02\x00\x01\x00", 7), std::string("GET\r\n\r\n"),
          std::string("GET / HTTP/9.9\r\n\r\n"),
          "GET / HTTP/1.1\r\nHost: localhost\r\nX: " + std::string(20000, 'a') + "\r\n\r\n"}) {
        const std::string reply = ask(nonsense + "\r\n\r\n");
        EXPECT_TRUE(reply.empty() || reply.starts_with("HTTP/1.1 400")) << reply.substr(0, 100);
    }
    EXPECT_TRUE(get("/").starts_with("HTTP/1.1 200"));
}

TEST_F(Web, BytesThatTrickleDoNotHoldAConnection) {
    server_.reset();
    start({16, std::chrono::milliseconds(400), std::chrono::milliseconds(400), 8192});
    const Client slow(server_->bound().port);
    ASSERT_TRUE(slow.send("GET / HTTP/1.1\r\nHost: localhost\r\nX-A: "));
    constexpr int kBytes = 400;  // twenty seconds of them
    int sent = 0;
    std::thread trickle([&] {
        while (sent < kBytes && slow.send("b")) {
            ++sent;
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        }
    });
    EXPECT_EQ(slow.read_all(), "");
    trickle.join();
    EXPECT_LT(sent, kBytes);
}

TEST_F(Web, ManyIdleConnectionsDoNotKeepAReaderOut) {
    server_.reset();
    start({16, kLong, kLong, 8192});
    std::vector<std::unique_ptr<Client>> idle;
    for (int i = 0; i < 200; ++i) {
        idle.push_back(std::make_unique<Client>(server_->bound().port));
        EXPECT_TRUE(idle.back()->connected());
    }
    EXPECT_TRUE(get("/view.json").starts_with("HTTP/1.1 200"))
        << "those that only wait were closed for it";
}

// Waiting for the reader would take longer than a test may.
TEST_F(Web, EndsAtOnceWithReadersConnected) {
    server_.reset();
    start({16, kLong, kLong, 8192});
    const Client client(server_->bound().port);
    ASSERT_TRUE(client.send("GET / HTTP/1.1\r\n"));
    server_.reset();
}

TEST(WebAddress, LoopbackOrSaidAloud) {
    EXPECT_EQ(parse_web_address("127.0.0.1:0", false)->port, 0);
    EXPECT_TRUE(parse_web_address("localhost:8080", false));
    EXPECT_TRUE(parse_web_address("[::1]:8080", false));
    for (const char* open :
         {"0.0.0.0:80", "192.168.1.2:80", "127.evil.example:80", "hub.lan:80", "[::]:80"}) {
        EXPECT_NE(parse_web_address(open, false).error().message.find("--insecure"),
                  std::string::npos)
            << open;
        EXPECT_TRUE(parse_web_address(open, true)) << open;
    }
    for (const char* bad : {"", "80", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "http://a:1/"})
        EXPECT_FALSE(parse_web_address(bad, true)) << bad;
}

TEST(WebAddress, OneInUseIsSaid) {
    auto first = WebServer::start({"127.0.0.1", 0}, {});
    ASSERT_TRUE(first);
    const auto second = WebServer::start((*first)->bound(), {});
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ExitCode::kUnreachable);
    EXPECT_NE(second.error().message.find("--web: cannot listen on 127.0.0.1:"), std::string::npos);
}

}  // namespace
}  // namespace ecopipe
