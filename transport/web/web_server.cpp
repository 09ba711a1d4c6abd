#include "transport/web/web_server.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <list>
#include <optional>
#include <thread>

#include "core/clock.h"
#include "core/log.h"

namespace ecopipe {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using tcp = asio::ip::tcp;

constexpr auto kAcceptPause = std::chrono::milliseconds(200);  // when descriptors have run out

using Response = http::response<http::string_body>;

// A route and its newest body, so that many readers cost one rendering.
struct CachedRoute {
    WebRoute route;
    std::string tag;
    std::string body;
    bool filled = false;
};

struct Site {
    std::map<std::string, CachedRoute> routes;
    WebLimits limits;
    std::string host;  // as bound
};

Response plain(http::status status, unsigned version, const std::string& text) {
    Response response{status, version};
    response.set(http::field::content_type, "text/plain; charset=utf-8");
    response.body() = text + "\n";
    return response;
}

Response answer(Site& site, const http::request<http::empty_body>& request) {
    const unsigned version = request.version();
    const auto header = [&](http::field field) {
        const auto value = request[field];
        return std::string(value.data(), value.size());
    };
    if (request.count(http::field::host) != 1 ||
        !host_header_allowed(header(http::field::host), site.host))
        return plain(http::status::forbidden, version,
                     "expected a request to this machine's address or localhost");
    if (request.method() != http::verb::get) {
        Response refused = plain(http::status::method_not_allowed, version, "expected GET");
        refused.set(http::field::allow, "GET");
        return refused;
    }
    const auto found = site.routes.find(std::string(request.target().data(),  // a copy on purpose
                                                    request.target().size()));
    if (found == site.routes.end())
        return plain(http::status::not_found, version, "there is no such page");
    CachedRoute& cached = found->second;
    const std::string tag = fmt::format("\"{}\"", cached.route.tag());
    const bool known = header(http::field::if_none_match) == tag;
    if (!known && (!cached.filled || cached.tag != tag)) {
        cached.body = cached.route.body();
        cached.tag = tag;
        cached.filled = true;
    }
    Response response{known ? http::status::not_modified : http::status::ok, version};
    response.set(http::field::content_type, cached.route.content_type);
    response.set(http::field::etag, tag);
    if (!cached.route.content_security_policy.empty())
        response.set("Content-Security-Policy", cached.route.content_security_policy);
    if (!known) response.body() = cached.body;
    return response;
}

class Connection : public std::enable_shared_from_this<Connection> {
  public:
    Connection(tcp::socket socket, Site& site, std::function<void(Connection*)> closed)
        : stream_(std::move(socket)), site_(site), closed_(std::move(closed)) {}

    void read() {
        waiting_since_ = monotonic_now();
        parser_.emplace();
        parser_->header_limit(static_cast<std::uint32_t>(site_.limits.header_bytes));
        parser_->body_limit(0);
        // One deadline for the whole request: bytes that trickle in do not prolong it.
        stream_.expires_after(site_.limits.request);
        http::async_read(stream_, buffer_, *parser_,
                         [self = shared_from_this()](beast::error_code error, std::size_t) {
                             self->on_read(error);
                         });
    }
    void close() {
        beast::error_code ignored;
        stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
        stream_.close();
    }
    // Since when nothing has come of it; a time far ahead while it is being answered.
    [[nodiscard]] Instant waiting_since() const { return waiting_since_; }

  private:
    void on_read(beast::error_code error) {
        waiting_since_ = Instant::max();
        if (error == http::error::end_of_stream || error == beast::error::timeout ||
            error == asio::error::operation_aborted || error == asio::error::connection_reset)
            return finish();
        if (error) {  // it is no request: say so once, and leave
            response_ = plain(http::status::bad_request, 11, "expected a request without a body");
            response_.keep_alive(false);
        } else {
            response_ = answer(site_, parser_->get());
            response_.keep_alive(parser_->get().keep_alive());
        }
        response_.set("X-Content-Type-Options", "nosniff");
        response_.set("X-Frame-Options", "DENY");
        response_.set("Referrer-Policy", "no-referrer");
        response_.set("Cross-Origin-Resource-Policy", "same-origin");
        response_.set(http::field::cache_control, "no-cache");
        response_.prepare_payload();
        stream_.expires_after(site_.limits.reply);
        http::async_write(stream_, response_,
                          [self = shared_from_this()](beast::error_code failed, std::size_t) {
                              if (failed || !self->response_.keep_alive()) return self->finish();
                              self->read();
                          });
    }
    void finish() {
        close();
        closed_(this);
    }

    beast::tcp_stream stream_;
    beast::flat_buffer buffer_{64 << 10};
    std::optional<http::request_parser<http::empty_body>> parser_;
    Response response_;
    Site& site_;
    std::function<void(Connection*)> closed_;
    Instant waiting_since_{};
};

class BeastServer : public WebServer {
  public:
    BeastServer(std::map<std::string, WebRoute> routes, WebLimits limits, std::string host) {
        for (auto& [path, route] : routes)
            site_.routes.emplace(path, CachedRoute{std::move(route), "", "", false});
        site_.limits = limits;
        site_.host = std::move(host);
    }
    ~BeastServer() override {
        context_.stop();
        if (thread_.joinable()) thread_.join();
    }
    [[nodiscard]] const Endpoint& bound() const override { return bound_; }

    Result<void> listen(const Endpoint& bind) {
        const auto refused = [&](const beast::error_code& error) {
            return fail(ExitCode::kUnreachable, fmt::format("--web: cannot listen on {}: {}",
                                                            bind.place(), error.message()));
        };
        beast::error_code error;
        tcp::resolver resolver(context_);
        const auto found = resolver.resolve(bind.host, std::to_string(bind.port), error);
        if (error) return refused(error);
        const tcp::endpoint endpoint = found.begin()->endpoint();
        acceptor_.open(endpoint.protocol(), error);
        if (!error) acceptor_.set_option(asio::socket_base::reuse_address(true), error);
        if (!error) acceptor_.bind(endpoint, error);
        if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
        if (error) return refused(error);
        bound_ = {bind.host, acceptor_.local_endpoint().port()};
        return {};
    }
    void run() {
        accept();
        thread_ = std::thread([this] {
            // A handler that throws (out of memory) costs its connection, never the program.
            for (;;) {
                try {
                    context_.run();
                    return;
                } catch (const std::exception& error) {
                    log_warn("web page: {}", one_line(error.what()));
                }
            }
        });
    }

  private:
    void accept() {
        acceptor_.async_accept([this](beast::error_code error, tcp::socket socket) {
            if (error) {
                retry_.expires_after(kAcceptPause);
                retry_.async_wait([this](beast::error_code stopped) {
                    if (!stopped) accept();
                });
                return;
            }
            if (connections_.size() >= site_.limits.connections) make_room();
            auto connection =
                std::make_shared<Connection>(std::move(socket), site_, [this](Connection* gone) {
                    connections_.remove_if(
                        [gone](const auto& other) { return other.get() == gone; });
                });
            connections_.push_back(connection);
            connection->read();
            accept();
        });
    }
    void make_room() {
        const auto oldest = std::min_element(
            connections_.begin(), connections_.end(), [](const auto& left, const auto& right) {
                return left->waiting_since() < right->waiting_since();
            });
        (*oldest)->close();
        connections_.erase(oldest);
    }

    asio::io_context context_{1};
    tcp::acceptor acceptor_{context_};
    asio::steady_timer retry_{context_};
    Site site_;
    std::list<std::shared_ptr<Connection>> connections_;
    Endpoint bound_;
    std::thread thread_;
};

}  // namespace

bool host_header_allowed(const std::string& header, const std::string& bound) {
    std::string host = header;
    if (host.starts_with('[')) {
        const std::size_t end = host.find(']');
        if (end == std::string::npos) return false;
        host = host.substr(1, end - 1);
    } else if (const std::size_t colon = host.find(':'); colon != std::string::npos) {
        host.resize(colon);
    }
    if (host.empty()) return false;
    if (host == "localhost" || host == bound) return true;
    beast::error_code error;
    asio::ip::make_address(host, error);
    return !error;
}

Result<Endpoint> parse_web_address(const std::string& text, bool insecure) {
    const auto endpoint = parse_endpoint("tcp://" + text, "--web");
    if (!endpoint)
        return fail(ExitCode::kUsage, fmt::format("--web: expected ADDRESS:PORT (127.0.0.1:8080), "
                                                  "found '{}'",
                                                  printable(text)));
    if (!endpoint->loopback() && !insecure)
        return fail(ExitCode::kUsage,
                    fmt::format("--web: {} is not a loopback address; anybody there could read "
                                "the page, so it needs --insecure",
                                endpoint->host));
    return *endpoint;
}

std::string WebServer::url() const { return fmt::format("http://{}/", bound().place()); }

Result<std::unique_ptr<WebServer>> WebServer::start(const Endpoint& bind,
                                                    std::map<std::string, WebRoute> routes,
                                                    WebLimits limits) {
    auto server = std::make_unique<BeastServer>(std::move(routes), limits, bind.host);
    ECOPIPE_RETURN_IF_ERROR(server->listen(bind));
    server->run();
    return std::unique_ptr<WebServer>(std::move(server));
}

}  // namespace ecopipe
