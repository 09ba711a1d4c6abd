#include "fl_server/client/federation_link.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/command_line.h"
#include "core/files.h"
#include "core/log.h"

namespace ecopipe {
namespace {

constexpr auto kHelloEvery = std::chrono::milliseconds(500);
constexpr auto kIdleHelloEvery = std::chrono::seconds(5);  // "is there nothing for me?"
constexpr auto kLinkTick = std::chrono::milliseconds(50);
constexpr std::size_t kChunk = 512U << 10;
constexpr std::size_t kPullWindow = 4;  // requests under way
constexpr double kAgainAfterS = 5;      // without an answer, what was sent may be lost
constexpr double kTellSilenceAfterS = 10;

// Code 4: what is in the way may pass.
bool is_for_now(const Refuse& refuse) {
    return static_cast<ExitCode>(refuse.code) == ExitCode::kUnreachable;
}

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
    const Instant now = monotonic_now();
    if (hello_due_ != Instant{})
        last_heard_ = std::min<Instant>(now, last_heard_ + time_not_run(now, hello_due_));
    const bool silent = now - last_heard_ > silence_max_;
    const bool idle = hello_.working_on == 0 && now - last_hello_ > kIdleHelloEvery;
    if (silent || idle) {
        static_cast<void>(socket_->send("", {}, hello_));
        last_hello_ = now;
    }
    hello_due_ = now + std::min<Duration>(kHelloEvery, silence_max_);
    loop_.at(hello_due_, lifeline_, [this] { say_hello(); });
}

void FederationLink::work_on(std::uint64_t task) {
    loop_.call([this, task] {
        hello_.working_on = task;
        hello_.epoch = epoch_;
    });
}

Result<void> FederationLink::take_epoch(const Message& welcome) {
    ECOPIPE_ASSIGN_OR_RETURN(const ClusterWelcome told, decode_as<ClusterWelcome>(welcome.body));
    const std::uint64_t before = std::exchange(epoch_, told.epoch);
    if (before == 0 || before == told.epoch) return {};
    log_warn("server {}: its state was restored; this cluster starts on a new task",
             server_.text());
    answered_ = 0;
    return {};
}

void FederationLink::on_message(const Incoming& message) {
    const auto type = static_cast<MessageType>(message.header.type);
    // Who is told "not now" waits as for a silent server, and asks again.
    const auto refuse =
        type == MessageType::kRefuse ? decode<Refuse>(message.body) : Result<Refuse>(Refuse{});
    if (!refuse || !is_for_now(*refuse)) last_heard_ = monotonic_now();
    if (type == MessageType::kPing) {
        if (const auto ping = decode<Ping>(message.body))
            static_cast<void>(socket_->send(
                "", {}, Pong{ping->sent_ns, last_heard_.time_since_epoch().count(), 0}));
        return;
    }
    // A server that is back knows nothing of this connection until it hears Hello: three pings
    // missed are reason enough.
    if (type == MessageType::kClusterWelcome)
        if (const auto welcome = decode<ClusterWelcome>(message.body))
            silence_max_ = std::chrono::milliseconds(
                std::min(3 * welcome->ping_interval_ms, welcome->silence_max_ms));
    inbox_.push({type,
                 {message.body.begin(), message.body.end()},
                 {message.payload.begin(), message.payload.end()}});
}

Result<std::optional<FederationLink::Message>> FederationLink::next(double wait_s,
                                                                    double patience_s) {
    const Instant deadline = monotonic_now() + from_ms(wait_s * 1000);
    do {
        if (signal_received() != 0) return fail(ExitCode::kRunFailed, "interrupted by a signal");
        auto message = inbox_.pop_until(std::min<Instant>(deadline, monotonic_now() + kLinkTick));
        if (!message) continue;
        told_silence_ = false;
        if (message->type == MessageType::kClusterWelcome) {
            refused_for_now_.clear();
            ECOPIPE_RETURN_IF_ERROR(take_epoch(*message));
        }
        if (message->type == MessageType::kRefuse) {
            ECOPIPE_ASSIGN_OR_RETURN(const Refuse refuse, decode_as<Refuse>(message->body));
            if (is_for_now(refuse)) {
                const std::string reason = printable(refuse.reason);
                if (std::exchange(refused_for_now_, reason) != reason)
                    log_warn("server {} takes this cluster not yet: {}; waiting", server_.text(),
                             reason);
                continue;
            }
            return fail(
                static_cast<ExitCode>(refuse.code),
                fmt::format("refused by server {}: {}", server_.text(), printable(refuse.reason)));
        }
        if (message->type == MessageType::kClassList && welcomed_)
            return fail(ExitCode::kRunFailed,
                        fmt::format("server {} has another list of classes than when this cluster "
                                    "joined",
                                    server_.text()));
        if (message->type == MessageType::kFederationEnd) {
            ECOPIPE_ASSIGN_OR_RETURN(const FederationEnd end,
                                     decode_as<FederationEnd>(message->body));
            if (end.code != 0)
                return fail(static_cast<ExitCode>(end.code),
                            "the federation ended: " + printable(end.reason));
        }
        return std::optional(std::move(*message));
    } while (monotonic_now() < deadline);
    // Pings keep a live server from looking silent.
    const double silence_s =
        to_ms(loop_.call([this] { return monotonic_now() - last_heard_; })) / 1000;
    if (silence_s > patience_s && !refused_for_now_.empty()) return still_refused(silence_s);
    if (silence_s > patience_s)
        return fail(ExitCode::kUnreachable, fmt::format("server {} has said nothing for {:.0f} s",
                                                        server_.text(), silence_s));
    if (silence_s > kTellSilenceAfterS && !std::exchange(told_silence_, true))
        log_warn("server {} is silent; waiting for it", server_.text());
    return std::optional<Message>();
}

tl::unexpected<Error> FederationLink::still_refused(double waited_s) const {
    return fail(ExitCode::kUnreachable,
                fmt::format("server {} has not taken this cluster for {:g} s: {}", server_.text(),
                            waited_s, refused_for_now_));
}

bool FederationLink::is_newer(const Message& message, const Task& than) {
    if (message.type != MessageType::kTask) return false;
    const auto task = decode_as<Task>(message.body);
    return task && task->epoch == than.epoch && task->sequence > than.sequence;
}

bool FederationLink::keep(Message message) {
    const bool over = message.type == MessageType::kFederationEnd;
    if (over) kept_.clear();
    kept_.push_back(std::move(message));
    return over;
}

Result<ClusterWelcome> FederationLink::join(const Endpoint& server, const std::string& peer,
                                            const ClusterHello& hello, double timeout_s,
                                            const MapClasses& map_classes) {
    server_ = server;
    ECOPIPE_RETURN_IF_ERROR(loop_.call([&]() -> Result<void> {
        hello_ = hello;
        last_heard_ = monotonic_now() - silence_max_ * 2;
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
    WatchedDeadline deadline(monotonic_now(), from_ms(timeout_s * 1000), kLinkTick);
    while (!deadline.over(monotonic_now())) {
        ECOPIPE_ASSIGN_OR_RETURN(auto message, next(to_ms(kLinkTick) / 1000, 2 * timeout_s + 1));
        if (!message) continue;
        welcomed_ = message->type == MessageType::kClusterWelcome;
        if (welcomed_) return decode_as<ClusterWelcome>(message->body);
        if (message->type == MessageType::kClassList && map_classes) {
            ECOPIPE_ASSIGN_OR_RETURN(const ClassList list, decode_as<ClassList>(message->body));
            ECOPIPE_ASSIGN_OR_RETURN(const ClusterHello mapped, map_classes(list.classes));
            loop_.call([&] {
                hello_ = mapped;
                static_cast<void>(socket_->send("", {}, hello_));
                last_hello_ = monotonic_now();
            });
            continue;
        }
        static_cast<void>(keep(std::move(*message)));
    }
    if (!refused_for_now_.empty()) return still_refused(timeout_s);
    return fail(ExitCode::kUnreachable,
                fmt::format("server {} did not answer within {} s", server_.text(), timeout_s));
}

Result<std::optional<Task>> FederationLink::next_task() {
    for (;;) {
        std::optional<Message> message;
        if (!kept_.empty()) {
            message = std::move(kept_.front());
            kept_.pop_front();
        } else {
            ECOPIPE_ASSIGN_OR_RETURN(message, next(1, patience_s_));
        }
        if (!message) continue;
        if (message->type == MessageType::kFederationEnd) return std::optional<Task>();
        if (message->type != MessageType::kTask) continue;
        ECOPIPE_ASSIGN_OR_RETURN(Task task, decode_as<Task>(message->body));
        // It was sent again while its verdict came, or before the state was restored.
        if (task.epoch != epoch_ || task.sequence <= answered_) continue;
        work_on(task.sequence);
        return std::optional(std::move(task));
    }
}

Result<std::optional<TensorMap>> FederationLink::pull_model(const Task& task) {
    const std::size_t total = *flat_bytes(task.tensors);
    std::string bytes;
    bytes.reserve(total);
    std::size_t asked = 0;
    std::size_t requests = 0;
    const auto ask_again = [&] {  // what was under way is lost with its connection
        asked = bytes.size();
        requests = 0;
    };
    while (bytes.size() < total) {
        while (asked < total && requests < kPullWindow) {
            const auto part = static_cast<std::uint32_t>(std::min(kChunk, total - asked));
            send(ModelRequest{task.base_version, asked, part, bytes.size()});
            asked += part;
            ++requests;
        }
        ECOPIPE_ASSIGN_OR_RETURN(auto message, next(kAgainAfterS, patience_s_));
        if (task.epoch != epoch_) {
            work_on(0);
            return std::optional<TensorMap>();
        }
        if (!message || message->type == MessageType::kClusterWelcome) {
            ask_again();
            continue;
        }
        if (message->type != MessageType::kModelChunk) {
            const bool newer = is_newer(*message, task);
            if (!keep(std::move(*message)) && !newer) continue;
            if (newer) work_on(0);
            return std::optional<TensorMap>();
        }
        ECOPIPE_ASSIGN_OR_RETURN(const ModelChunk chunk, decode_as<ModelChunk>(message->body));
        if (chunk.version != task.base_version || chunk.offset != bytes.size() ||
            message->payload.size() > total - bytes.size())
            continue;
        bytes.append(reinterpret_cast<const char*>(message->payload.data()),
                     message->payload.size());
        if (requests > 0) --requests;
    }
    send(ModelRequest{task.base_version, total, 1, total});  // all of it is here
    if (sha256_hex(bytes) != task.sha256)
        return fail(ExitCode::kRunFailed,
                    "the server's model does not have the hash that its task names");
    return std::optional(unflatten(task.tensors, bytes));
}

Result<Verdict> FederationLink::push_update(const std::vector<OutgoingSlice>& slices,
                                            std::shared_ptr<const std::string> bytes) {
    const std::uint64_t task = slices.front().announcement.sequence;
    const auto owner = std::const_pointer_cast<std::string>(bytes);
    struct Sent {
        std::size_t bytes = 0;
        bool announced = false;  // and no grant since: the next one says where to go on
    };
    std::vector<Sent> progress(slices.size());
    const auto announce = [&] {
        for (std::size_t s = 0; s < slices.size(); ++s) {
            send(slices[s].announcement);
            progress[s].announced = true;
        }
    };
    std::string told;
    announce();
    for (;;) {
        ECOPIPE_ASSIGN_OR_RETURN(auto message, next(kAgainAfterS, patience_s_));
        if (slices.front().announcement.epoch != epoch_) {
            work_on(0);
            return Verdict{task, false, "the federation's state was restored since"};
        }
        if (!message || message->type == MessageType::kClusterWelcome) {
            announce();  // the server goes on where it was
        } else if (message->type == MessageType::kUploadGrant) {
            ECOPIPE_ASSIGN_OR_RETURN(const UploadGrant grant,
                                     decode_as<UploadGrant>(message->body));
            if (grant.sequence != task || grant.slice >= slices.size()) continue;
            if (!grant.reason.empty() && std::exchange(told, grant.reason) != grant.reason)
                log_warn("the update waits: {}", printable(grant.reason));
            const OutgoingSlice& slice = slices[grant.slice];
            std::size_t& sent = progress[grant.slice].bytes;
            if (std::exchange(progress[grant.slice].announced, false)) sent = grant.offset;
            for (std::size_t end = std::min<std::size_t>(grant.until, slice.bytes); sent < end;) {
                const std::size_t part = std::min(kChunk, end - sent);
                send(UpdateChunk{task, grant.slice, sent},
                     Payload{std::as_bytes(std::span(*owner)).subspan(slice.offset + sent, part),
                             owner});
                sent += part;
            }
        } else if (message->type == MessageType::kVerdict) {
            ECOPIPE_ASSIGN_OR_RETURN(const Verdict verdict, decode_as<Verdict>(message->body));
            if (verdict.sequence != task) continue;
            answered_ = std::max(answered_, task);
            work_on(0);
            return verdict;
        } else {
            if (keep(std::move(*message))) return Verdict{task, false, "the federation has ended"};
        }
    }
}

}  // namespace ecopipe
