#include "fl_server/service/control_socket.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <cstring>
#include <thread>

#include "core/clock.h"
#include "core/log.h"
#include "core/mutex.h"
#include "fl_server/view/view_text.h"

namespace ecopipe {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Local = asio::local::stream_protocol;
using Tcp = asio::ip::tcp;

constexpr std::size_t kLineMax = 64U << 10;
constexpr auto kPatience = std::chrono::seconds(10);  // for a request, and for its answer to go
constexpr auto kAcceptAgain = std::chrono::milliseconds(100);
constexpr int kCommandConnectionsMax = 64;  // of both listeners

}  // namespace

struct ControlSocket::Impl {
    int connections = 0;  // first: who is left at the end is counted down then
    asio::io_context context;
    std::string path;
    Local::acceptor local{context};
    Tcp::acceptor tcp{context};
    Command command;
    Mutex mutex;
    std::shared_ptr<const FederationView> view ECOPIPE_GUARDED_BY(mutex);
    std::thread thread;

    void run() {
        for (;;) {
            try {
                context.run();
                return;
            } catch (const std::exception& error) {  // of one request: the others are served
                log_warn("{}: {}", path, one_line(error.what()));
            }
        }
    }

    std::shared_ptr<const FederationView> newest() {
        const MutexLock lock(mutex);
        return view;
    }

    std::string answer(const std::string& line) {
        if (line != "status") return command(line);
        const auto seen = newest();
        return seen ? view_json(*seen).dump() : R"({"error":"not ready yet"})";
    }

    // One connection after the other to `serve`; what cannot be accepted now (no descriptor is
    // left) is tried again.
    template <class Acceptor, class Serve>
    void accept(Acceptor& acceptor, Serve serve) {
        using Socket = typename Acceptor::protocol_type::socket;
        acceptor.async_accept([this, &acceptor, serve](boost::system::error_code bad,
                                                       Socket socket) {
            if (bad == asio::error::operation_aborted) return;
            if (bad) {
                const auto again = std::make_shared<asio::steady_timer>(context, kAcceptAgain);
                again->async_wait(
                    [this, &acceptor, serve, again](boost::system::error_code stopped) {
                        if (!stopped) accept(acceptor, serve);
                    });
                return;
            }
            if (connections < kCommandConnectionsMax) {
                using Stream = beast::basic_stream<typename Acceptor::protocol_type>;
                ++connections;
                std::shared_ptr<Stream> stream(new Stream(std::move(socket)), [this](Stream* it) {
                    --connections;
                    delete it;
                });
                stream->expires_after(kPatience);
                serve(stream);
            }
            accept(acceptor, serve);
        });
    }

    void serve_line(const std::shared_ptr<beast::basic_stream<Local>>& peer) {
        auto text = std::make_shared<std::string>();
        asio::async_read_until(
            *peer, asio::dynamic_buffer(*text, kLineMax), '\n',
            [this, peer, text](boost::system::error_code failed, std::size_t bytes) {
                if (failed) return;
                *text = answer(text->substr(0, bytes - 1)) + "\n";
                peer->expires_after(kPatience);
                asio::async_write(*peer, asio::buffer(*text),
                                  [peer, text](boost::system::error_code, std::size_t) {});
            });
    }

    void serve_metrics(const std::shared_ptr<beast::tcp_stream>& stream) {
        auto buffer = std::make_shared<beast::flat_buffer>(kLineMax);
        auto request = std::make_shared<http::request<http::empty_body>>();
        http::async_read(
            *stream, *buffer, *request,
            [this, stream, buffer, request](boost::system::error_code failed, std::size_t) {
                if (!failed) respond(stream, *request);
            });
    }

    void respond(const std::shared_ptr<beast::tcp_stream>& stream,
                 const http::request<http::empty_body>& request) {
        const bool known = request.method() == http::verb::get && request.target() == "/metrics";
        auto response = std::make_shared<http::response<http::string_body>>(
            known ? http::status::ok : http::status::not_found, request.version());
        response->set(http::field::content_type, "text/plain; version=0.0.4; charset=utf-8");
        const auto seen = newest();
        response->body() = known && seen ? prometheus_text(*seen) : "see /metrics\n";
        response->keep_alive(false);
        response->prepare_payload();
        http::async_write(*stream, *response,
                          [stream, response](boost::system::error_code, std::size_t) {
                              boost::system::error_code ignored;
                              stream->socket().shutdown(Tcp::socket::shutdown_send, ignored);
                          });
    }
};

ControlSocket::ControlSocket(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

ControlSocket::~ControlSocket() {
    impl_->context.stop();
    impl_->thread.join();
    ::unlink(impl_->path.c_str());
}

Result<std::unique_ptr<ControlSocket>> ControlSocket::open(const std::string& path,
                                                           const std::optional<Endpoint>& metrics,
                                                           Command command) {
    auto impl = std::make_unique<Impl>();
    impl->path = path;
    impl->command = std::move(command);
    if (path.size() >= sizeof(sockaddr_un{}.sun_path))
        return fail(ExitCode::kUsage, fmt::format("{}: is too long a path for a socket", path));
    ::unlink(path.c_str());  // of a server that was killed
    std::string place = path;
    try {
        impl->local.open(Local());
        impl->local.bind(Local::endpoint(path));
        ::chmod(path.c_str(), S_IRUSR | S_IWUSR);  // before anybody can connect
        impl->local.listen();
        impl->accept(impl->local, [it = impl.get()](const auto& peer) { it->serve_line(peer); });
        if (metrics) {
            place = metrics->text();
            ECOPIPE_ASSIGN_OR_RETURN(const auto hosts, listen_addresses(metrics->host));
            const Tcp::endpoint address(asio::ip::make_address(hosts.front()), metrics->port);
            impl->tcp.open(address.protocol());
            impl->tcp.set_option(Tcp::acceptor::reuse_address(true));
            impl->tcp.bind(address);
            impl->tcp.listen();
            impl->accept(impl->tcp,
                         [it = impl.get()](const auto& peer) { it->serve_metrics(peer); });
        }
    } catch (const boost::system::system_error& error) {
        return fail(ExitCode::kUnreachable,
                    fmt::format("{}: cannot listen: {}", place, one_line(error.what())));
    }
    Impl* raw = impl.get();
    impl->thread = std::thread([raw] { raw->run(); });
    return std::unique_ptr<ControlSocket>(new ControlSocket(std::move(impl)));
}

void ControlSocket::publish(std::shared_ptr<const FederationView> view) {
    const MutexLock lock(impl_->mutex);
    impl_->view = std::move(view);
}

std::uint16_t ControlSocket::metrics_port() const {
    boost::system::error_code ignored;
    return impl_->tcp.is_open() ? impl_->tcp.local_endpoint(ignored).port() : std::uint16_t{0};
}

Result<std::string> ask_server(const std::string& path, const std::string& line, double timeout_s) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const std::shared_ptr<const int> closer(&fd, [](const int* p) { ::close(*p); });
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const auto unreachable = [&](const char* what) {
        return fail(ExitCode::kUnreachable, fmt::format("{}: {}", path, what));
    };
    if (path.size() >= sizeof address.sun_path) return unreachable("is too long a path");
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return unreachable("no server answers there");
    const std::string text = line + "\n";
    if (::send(fd, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size()))
        return unreachable("the server went away");
    std::string answer;
    const Instant deadline = monotonic_now() + from_ms(timeout_s * 1000);
    for (;;) {
        pollfd wait{fd, POLLIN, 0};
        const auto left = static_cast<int>(to_ms(deadline - monotonic_now()));
        if (left <= 0 || ::poll(&wait, 1, left) == 0)
            return unreachable("the server does not answer");
        char part[4096];
        const ssize_t n = ::recv(fd, part, sizeof part, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        answer.append(part, static_cast<std::size_t>(n));
        if (answer.back() == '\n') break;
    }
    if (answer.empty() || answer.back() != '\n') return unreachable("the server went away");
    answer.pop_back();
    return answer;
}

}  // namespace ecopipe
