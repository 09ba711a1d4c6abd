#include "orchestrator/federation_link.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/command_line.h"
#include "core/files.h"
#include "core/log.h"

namespace ecopipe {
namespace {

constexpr auto kHelloEvery = std::chrono::milliseconds(500);
constexpr auto kTick = std::chrono::milliseconds(50);
constexpr std::size_t kChunk = 512U << 10;
constexpr std::size_t kPullWindow = 8;         // requests under way
constexpr std::size_t kPushWindow = 4U << 20;  // bytes under way
constexpr double kResendAfterS = 5;            // an update without verdict or credit

template <class Body>
Result<Body> decode_as(const std::vector<std::byte>& body) {
    auto decoded = decode<Body>(std::span<const std::byte>(body));
    if (!decoded)
        return fail(ExitCode::kRunFailed,
                    "the server sent a bad message: " + decoded.error().message);
    return decoded;
}

}  // namespace

FederationLink::~FederationLink() {
    loop_.call([this] {
        lifeline_.reset();
        socket_.reset();
    });
}

void FederationLink::say_hello() {
    if (monotonic_now() - last_heard_ > silence_max_)
        static_cast<void>(socket_->send("", {}, hello_));
    loop_.at(monotonic_now() + kHelloEvery, lifeline_, [this] { say_hello(); });
}

void FederationLink::on_message(const Incoming& message) {
    last_heard_ = monotonic_now();
    const auto type = static_cast<MessageType>(message.header.type);
    if (type == MessageType::kPing) {
        if (const auto ping = decode<Ping>(message.body))
            static_cast<void>(socket_->send(
                "", {}, Pong{ping->sent_ns, last_heard_.time_since_epoch().count(), 0}));
        return;
    }
    if (type == MessageType::kClusterWelcome)
        if (const auto welcome = decode<ClusterWelcome>(message.body))
            silence_max_ = std::chrono::milliseconds(welcome->silence_max_ms);
    inbox_.push({type,
                 {message.body.begin(), message.body.end()},
                 {message.payload.begin(), message.payload.end()}});
}

Result<FederationLink::Message> FederationLink::next(double timeout_s) {
    const Instant deadline = monotonic_now() + from_ms(timeout_s * 1000);
    while (monotonic_now() < deadline) {
        if (signal_received() != 0) return fail(ExitCode::kRunFailed, "interrupted by a signal");
        auto message = inbox_.pop_until(std::min<Instant>(deadline, monotonic_now() + kTick));
        if (!message) continue;
        if (message->type == MessageType::kRefuse) {
            ECOPIPE_ASSIGN_OR_RETURN(const Refuse refuse, decode_as<Refuse>(message->body));
            return fail(
                static_cast<ExitCode>(refuse.code),
                fmt::format("refused by server {}: {}", server_.text(), printable(refuse.reason)));
        }
        return std::move(*message);
    }
    return fail(ExitCode::kUnreachable,
                fmt::format("server {} did not answer within {} s", server_.text(), timeout_s));
}

Result<ClusterWelcome> FederationLink::join(const Endpoint& server, const std::string& peer,
                                            const ClusterHello& hello, double timeout_s) {
    server_ = server;
    hello_ = hello;
    ECOPIPE_RETURN_IF_ERROR(loop_.call([&]() -> Result<void> {
        auto socket = MessageSocket::dial(
            loop_, server, [this](const Incoming& message) { on_message(message); },
            [this](std::string_view, const Error& error) {
                log_warn("server {}: {}", server_.text(), error.message);
                if (error.code == ExitCode::kMismatch)
                    inbox_.push({MessageType::kRefuse,
                                 [&] {
                                     const std::string body = encode(Refuse{5, error.message});
                                     const auto bytes = std::as_bytes(std::span(body));
                                     return std::vector<std::byte>(bytes.begin(), bytes.end());
                                 }(),
                                 {}});
            },
            peer);
        if (!socket) return tl::unexpected<Error>(socket.error());
        socket_ = std::move(*socket);
        say_hello();
        return {};
    }));
    for (;;) {
        ECOPIPE_ASSIGN_OR_RETURN(Message message, next(timeout_s));
        if (message.type == MessageType::kClusterWelcome)
            return decode_as<ClusterWelcome>(message.body);
        kept_.push_back(std::move(message));
    }
}

Result<std::optional<Task>> FederationLink::next_task(double timeout_s) {
    for (;;) {
        Message message;
        if (!kept_.empty()) {
            message = std::move(kept_.front());
            kept_.erase(kept_.begin());
        } else {
            // Pings keep a live server from looking silent: they are answered below us, so ask how
            // long ago it spoke.
            auto received = next(1.0);
            if (!received) {
                if (received.error().code != ExitCode::kUnreachable)
                    return tl::unexpected<Error>(received.error());
                const auto silence = loop_.call([this] { return monotonic_now() - last_heard_; });
                if (to_ms(silence) > timeout_s * 1000)
                    return fail(ExitCode::kUnreachable,
                                fmt::format("server {} has said nothing for {:.0f} s",
                                            server_.text(), to_ms(silence) / 1000));
                continue;
            }
            message = std::move(*received);
        }
        if (message.type == MessageType::kTask) {
            ECOPIPE_ASSIGN_OR_RETURN(Task task, decode_as<Task>(message.body));
            return std::optional<Task>(std::move(task));
        }
        if (message.type == MessageType::kFederationEnd) {
            ECOPIPE_ASSIGN_OR_RETURN(const FederationEnd end,
                                     decode_as<FederationEnd>(message.body));
            if (end.code != 0)
                return fail(static_cast<ExitCode>(end.code),
                            "the federation ended: " + printable(end.reason));
            return std::optional<Task>();
        }
    }
}

Result<TensorMap> FederationLink::pull_model(const Task& task, double timeout_s) {
    const std::size_t total = *flat_bytes(task.tensors);
    std::string bytes;
    std::size_t asked = 0;
    std::size_t requests = 0;
    while (bytes.size() < total) {
        while (asked < total && requests < kPullWindow) {
            const auto part = static_cast<std::uint32_t>(std::min(kChunk, total - asked));
            send(ModelRequest{task.base_version, asked, part});
            asked += part;
            ++requests;
        }
        auto message = next(kResendAfterS);
        if (!message) {
            if (message.error().code != ExitCode::kUnreachable)
                return tl::unexpected<Error>(message.error());
            timeout_s -= kResendAfterS;
            if (timeout_s <= 0) return tl::unexpected<Error>(message.error());
            asked = bytes.size();  // what was under way is lost with its connection
            requests = 0;
            continue;
        }
        if (message->type != MessageType::kModelChunk) {
            kept_.push_back(std::move(*message));
            continue;
        }
        ECOPIPE_ASSIGN_OR_RETURN(const ModelChunk chunk, decode_as<ModelChunk>(message->body));
        if (chunk.version != task.base_version || chunk.offset != bytes.size() ||
            message->payload.size() > total - bytes.size())
            continue;
        bytes.append(reinterpret_cast<const char*>(message->payload.data()),
                     message->payload.size());
        if (requests > 0) --requests;
    }
    if (sha256_hex(bytes) != task.sha256)
        return fail(ExitCode::kRunFailed,
                    "the server's model does not have the hash that its task names");
    return unflatten(task.tensors, bytes);
}

Result<Verdict> FederationLink::push_update(const UpdateSlice& slice, const std::string& bytes,
                                            double timeout_s) {
    const auto owner = std::make_shared<std::string>(bytes);
    while (timeout_s > 0) {
        loop_.call([this] { unsent_ = false; });
        send(slice);
        std::size_t sent = 0;
        std::size_t credit = kPushWindow;
        for (;;) {
            while (sent < bytes.size() && credit > 0) {
                const std::size_t part = std::min({kChunk, bytes.size() - sent, credit});
                send(UpdateChunk{slice.sequence, slice.slice, sent},
                     Payload{std::as_bytes(std::span(*owner)).subspan(sent, part), owner});
                sent += part;
                credit -= part;
            }
            auto message = next(kResendAfterS);
            if (!message) {
                if (message.error().code != ExitCode::kUnreachable)
                    return tl::unexpected<Error>(message.error());
                timeout_s -= kResendAfterS;
                break;  // say it all again: the server knows the sequence and takes it once
            }
            if (message->type == MessageType::kCredit) {
                ECOPIPE_ASSIGN_OR_RETURN(const Credit more, decode_as<Credit>(message->body));
                credit = std::min(kPushWindow, credit + static_cast<std::size_t>(more.bytes));
            } else if (message->type == MessageType::kVerdict) {
                ECOPIPE_ASSIGN_OR_RETURN(const Verdict verdict, decode_as<Verdict>(message->body));
                if (verdict.sequence == slice.sequence) return verdict;
            } else {
                kept_.push_back(std::move(*message));
            }
        }
    }
    return fail(ExitCode::kUnreachable,
                fmt::format("server {} did not take the update", server_.text()));
}

}  // namespace ecopipe
