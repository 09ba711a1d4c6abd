#include "fl_server/service/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <future>
#include <map>
#include <utility>

#include "core/command_line.h"
#include "core/directory_lock.h"
#include "core/files.h"
#include "core/inbox.h"
#include "core/log.h"
#include "core/wall_clock.h"
#include "fl_server/service/cluster_claims.h"
#include "fl_server/service/connection_limits.h"
#include "fl_server/service/control_socket.h"
#include "fl_server/service/inbox_bound.h"
#include "fl_server/state/transfers.h"
#include "fl_server/view/federation_page.h"
#include "transport/net/message_socket.h"
#include "transport/net/stranger_log.h"
#include "transport/net/zap_handler.h"
#include "transport/web/web_page.h"
#include "transport/wire/messages.h"

namespace ecopipe {
namespace {

constexpr auto kTick = std::chrono::milliseconds(50);
constexpr auto kTurn = std::chrono::milliseconds(20);  // messages of one transaction
constexpr auto kEndLinger = std::chrono::milliseconds(500);
constexpr auto kViewEvery = std::chrono::milliseconds(500);
constexpr auto kUploadPatience = std::chrono::seconds(10);
constexpr auto kDownloadPatience = std::chrono::seconds(30);
constexpr auto kLowDiskEvery = std::chrono::seconds(1);
constexpr std::size_t kModelChunkMax = 1U << 20;
constexpr std::size_t kTurnMessages = 256;
constexpr double kCommandTimeoutS = 30;

struct Member {
    std::string routing_id;
    std::uint64_t instance = 0;
    Instant last_heard{};
};

struct Received {
    std::string from;
    FrameHeader header;
    std::vector<std::byte> body;
    std::vector<std::byte> payload;
    std::shared_ptr<void> counted;  // against the inbox's bound, until it is handled
};

struct Order {
    std::string line;
    std::promise<std::string> answer;
};

// The protocol runs on the main thread; the network thread only queues. What is queued is bounded
// by the credits of Transfers and by a few control messages a cluster, and where a client keeps to
// neither, by InboxBound: what is beyond is dropped, and clients send again what is not answered.
class Server {
  public:
    Server(ServerOptions options, const ModelLayout& layout)
        : options_(std::move(options)),
          layout_(layout),
          transfers_(options_.federation.limits.credit_mib << 20U),
          cluster_claims_(from_ms(options_.peer_timeout_s * 1000)),
          inbox_bound_(transfers_.bytes_max()),
          page_(options_.title, unix_ms_now()) {}

    Result<ExitCode> run(std::string initial);

  private:
    Result<void> open(std::string initial);
    Result<void> serve_page();
    Result<void> turn();
    Result<void> handle(const Received& message);
    Result<void> on_hello(const Received& message, const ClusterHello& hello);
    // Its connection is closed, as a killed process leaves it.
    bool is_cut(const Member& member);
    Result<void> on_slice(const std::string& cluster, const UpdateSlice& slice);
    Result<void> on_chunk(const std::string& cluster, const UpdateChunk& chunk,
                          const std::vector<std::byte>& payload);
    Result<void> watch_members();
    Result<void> serve_orders();
    static void answer(Order& order, const Result<void>& done);
    void note_disk(bool low);
    void turn_away(const std::string& cluster, std::uint64_t task, std::uint16_t slice);
    Result<void> move_bytes();
    void send_part(const Transfers::Part& part, const BlockSourcePtr& source);
    void send_outgoing();
    void publish_view();
    // Without a word: clusters wait for a server that may be started again.
    void close();
    template <class Body>
    void send_to(const std::string& cluster, const Body& body, Payload payload = {}) {
        const auto member = members_.find(cluster);
        if (member != members_.end()) send(member->second.routing_id, body, std::move(payload));
    }
    template <class Body>
    void send(const std::string& to, const Body& body, Payload payload = {}) {
        loop_.post([this, to, body, payload = std::move(payload)] {
            if (socket_) static_cast<void>(socket_->send(to, {}, body, payload));
        });
    }

    ServerOptions options_;
    const ModelLayout& layout_;
    Transfers transfers_;
    std::unique_ptr<Federation> federation_;
    std::map<std::string, Member> members_;
    std::map<std::string, std::string> names_by_routing_id_;
    ClusterClaims cluster_claims_;
    Instant started_ = monotonic_now();
    Duration not_run_{};
    Instant next_ping_{};
    Instant next_view_{};
    Instant next_disk_check_{};
    bool disk_is_low_ = false;
    // All that has come was handled: only then is a silence a cluster's own.
    bool caught_up_ = true;
    bool returned_ = false;    // those who did not come back after a restart were given up
    Instant waiting_since_{};  // for those
    std::uint64_t bytes_in_ = 0;
    std::uint64_t bytes_out_ = 0;
    Inbox<Received> inbox_;
    InboxBound inbox_bound_;
    StrangerLog odd_messages_;
    Inbox<Order> orders_;
    std::vector<Order> backups_;
    std::unique_ptr<ControlSocket> control_;
    FederationPage page_;
    std::unique_ptr<WebServer> web_;  // reads page_
    NetLoop loop_;
    std::unique_ptr<MessageSocket> socket_;
};

Result<void> Server::open(std::string initial) {
    options_.federation.now_s = [this] {
        return to_ms(monotonic_now() - started_ - not_run_) / 1000;
    };
    ECOPIPE_ASSIGN_OR_RETURN(federation_,
                             Federation::open(options_.federation, layout_, std::move(initial),
                                              std::move(options_.strategy)));
    use_keys(loop_, options_.keys);
    ECOPIPE_RETURN_IF_ERROR(loop_.call([this]() -> Result<void> {
        auto socket = MessageSocket::bind(
            loop_, options_.bind,
            [this](const Incoming& m) {
                auto counted =
                    inbox_bound_.take(std::string(m.from), m.body.size() + m.payload.size());
                if (!counted) {
                    loop_.strangers().tell(fmt::format(
                        "federation port: {} sends more than can be handled", m.address));
                    return;
                }
                inbox_.push({.from = std::string(m.from),
                             .header = m.header,
                             .body = {m.body.begin(), m.body.end()},
                             .payload = {m.payload.begin(), m.payload.end()},
                             .counted = std::move(counted)});
            },
            [this](std::string_view from, const Error& error) {
                log_warn("a bad message: {}", error.message);
                if (error.code == ExitCode::kMismatch)
                    static_cast<void>(socket_->send(from, {}, Refuse{5, "another protocol"}));
            },
            "federation", connection_limits(options_.federation.limits));
        if (!socket) return tl::unexpected<Error>(socket.error());
        socket_ = std::move(*socket);
        return {};
    }));
    const auto command = [this](const std::string& line) {
        Order order{line, {}};
        auto answer = order.answer.get_future();
        orders_.push(std::move(order));
        if (answer.wait_for(std::chrono::duration<double>(kCommandTimeoutS)) !=
            std::future_status::ready)
            return std::string(R"({"error":"the server is busy"})");
        return answer.get();
    };
    ECOPIPE_ASSIGN_OR_RETURN(
        control_, ControlSocket::open(options_.federation.state_directory + "/control.sock",
                                      options_.metrics, command));
    waiting_since_ = monotonic_now();
    return serve_page();
}

Result<void> Server::serve_page() {
    if (!options_.web) return {};
    ECOPIPE_ASSIGN_OR_RETURN(
        web_,
        WebServer::start(*options_.web,
                         web_page_routes([this] { return page_.document(unix_ms_now()).dump(); },
                                         [this] { return std::to_string(page_.revision()); })));
    log_info("page: {}", web_->url());
    return {};
}

Result<ExitCode> Server::run(std::string initial) {
    ECOPIPE_RETURN_IF_ERROR(open(std::move(initial)));
    log_info("listening on {}, version {}{}", Endpoint{options_.bind.host, socket_->port()}.text(),
             federation_->version(),
             options_.metrics
                 ? fmt::format(", metrics on {}",
                               Endpoint{options_.metrics->host, control_->metrics_port()}.text())
                 : "");
    while (!federation_->finished()) {
        if (signal_received() != 0) {
            close();
            return static_cast<ExitCode>(128 + signal_received());
        }
        if (const auto done = turn(); !done) {
            close();
            return tl::unexpected<Error>(done.error());
        }
    }
    ECOPIPE_RETURN_IF_ERROR(federation_->end());
    send_outgoing();
    publish_view();
    for (const auto& [cluster, member] : members_)
        send(member.routing_id, FederationEnd{0, "all rounds are done"});
    const Instant until = monotonic_now() + kEndLinger;
    while (inbox_.pop_until(until)) {  // what still comes does not cut this short
    }
    close();
    return ExitCode::kDone;
}

void Server::close() {
    control_.reset();
    loop_.call([this] { socket_.reset(); });
}

// Everything that came within a few milliseconds is one transaction: a thousand clusters do not
// cost a thousand syncs of the disk.
Result<void> Server::turn() {
    const Instant due = monotonic_now() + kTick;
    auto message = inbox_.pop_until(due);
    not_run_ += time_not_run(monotonic_now(), due);
    const Instant until = monotonic_now() + kTurn;
    caught_up_ = true;
    ECOPIPE_RETURN_IF_ERROR(federation_->begin_turn());
    for (std::size_t n = 0; message; ++n) {
        ECOPIPE_RETURN_IF_ERROR(handle(*message));
        message.reset();
        if (monotonic_now() >= until || n + 1 == kTurnMessages) {
            caught_up_ = false;
            break;
        }
        message = inbox_.pop_until(monotonic_now());
    }
    ECOPIPE_RETURN_IF_ERROR(watch_members());
    ECOPIPE_RETURN_IF_ERROR(serve_orders());
    ECOPIPE_RETURN_IF_ERROR(federation_->tick());
    ECOPIPE_RETURN_IF_ERROR(federation_->end_turn());
    send_outgoing();
    // Between transactions the files and the journal agree.
    for (Order& order : std::exchange(backups_, {}))
        answer(order, federation_->backup_to(order.line.substr(order.line.find(' ') + 1)));
    // What came while this process worked for itself is still to be handled.
    if (time_not_run(monotonic_now(), until) > Duration::zero()) caught_up_ = false;
    ECOPIPE_RETURN_IF_ERROR(move_bytes());
    if (monotonic_now() >= next_view_) publish_view();
    return {};
}

void Server::send_outgoing() {
    for (const Outgoing& out : federation_->take_outgoing()) {
        if (const auto* task = std::get_if<outgoing::SendTask>(&out)) {
            send_to(task->cluster, task->task);
        } else if (const auto* verdict = std::get_if<outgoing::SendVerdict>(&out)) {
            transfers_.end_uploads_of(verdict->cluster, verdict->verdict.sequence);
            send_to(verdict->cluster, verdict->verdict);
        }
    }
}

Result<void> Server::watch_members() {
    const Instant now = monotonic_now();
    if (now < next_ping_) return {};
    const auto silence_max = from_ms(options_.peer_timeout_s * 1000);
    // What this process did not run, or worked for itself, is nobody's silence.
    if (next_ping_ != Instant{}) {
        const Duration away = time_not_run(now, next_ping_);
        for (auto& [cluster, member] : members_)
            member.last_heard = std::min<Instant>(now, member.last_heard + away);
        transfers_.nobody_looked(now, away);
        waiting_since_ += away;
    }
    next_ping_ = now + silence_max / 10;
    std::vector<std::string> gone;
    for (const auto& [cluster, member] : members_) {
        if (caught_up_ && now - member.last_heard > silence_max) gone.push_back(cluster);
        send(member.routing_id, Ping{now.time_since_epoch().count()});
    }
    for (const std::string& cluster : gone) {
        log_warn("cluster {} has said nothing for {} s", cluster, options_.peer_timeout_s);
        names_by_routing_id_.erase(members_.at(cluster).routing_id);
        members_.erase(cluster);
        cluster_claims_.settle(cluster);
        transfers_.forget(cluster);
        ECOPIPE_RETURN_IF_ERROR(federation_->left(cluster));
    }
    if (!returned_ && now - waiting_since_ > silence_max) {
        returned_ = true;
        for (const std::string& cluster : federation_->absent()) {
            log_warn("cluster {} has not come back", cluster);
            ECOPIPE_RETURN_IF_ERROR(federation_->left(cluster));
        }
    }
    return {};
}

Result<void> Server::handle(const Received& message) {
    const std::span<const std::byte> body(message.body);
    const auto type = static_cast<MessageType>(message.header.type);
    if (type == MessageType::kClusterHello) {
        if (const auto hello = decode<ClusterHello>(body)) return on_hello(message, *hello);
        return {};
    }
    const auto known = names_by_routing_id_.find(message.from);
    if (known == names_by_routing_id_.end())
        return {};  // it will say Hello again when it hears nothing
    const std::string cluster = known->second;
    members_.at(cluster).last_heard = monotonic_now();
    if (type == MessageType::kModelRequest) {
        if (const auto request = decode<ModelRequest>(body)) {
            if (request->offset >= layout_.bytes())
                transfers_.received(monotonic_now(), cluster, request->received);
            else
                transfers_.ask(
                    monotonic_now(),
                    {.cluster = cluster,
                     .version = request->version,
                     .offset = request->offset,
                     .bytes = std::min<std::size_t>(
                         {request->bytes, kModelChunkMax, layout_.bytes() - request->offset})},
                    request->received);
        }
    } else if (type == MessageType::kUpdateSlice) {
        if (const auto slice = decode<UpdateSlice>(body)) return on_slice(cluster, *slice);
    } else if (type == MessageType::kUpdateChunk) {
        if (const auto chunk = decode<UpdateChunk>(body))
            return on_chunk(cluster, *chunk, message.payload);
    } else if (type == MessageType::kClusterStatus) {
        if (const auto status = decode<ClusterStatus>(body))
            return federation_->status(cluster, *status);
    } else if (type != MessageType::kPong) {
        odd_messages_.tell(
            fmt::format("cluster {}: unexpected message {}", cluster, message.header.type));
    }
    return {};
}

Result<void> Server::on_hello(const Received& message, const ClusterHello& hello) {
    const auto refuse = [&](ExitCode code, const std::string& reason) {
        log_warn("refused cluster {}: {}", printable(hello.cluster), reason);
        send(message.from, Refuse{static_cast<std::uint8_t>(code), reason});
        return Result<void>();
    };
    if (!speaks_for(message.from, hello.cluster))
        return refuse(ExitCode::kMismatch,
                      fmt::format("its key is not the one of {}", printable(hello.cluster)));
    if (hello.program_version != kVersion)
        return refuse(ExitCode::kMismatch, fmt::format("version {} cannot join version {}",
                                                       printable(hello.program_version), kVersion));
    if (hello.model != options_.model_id)
        return refuse(ExitCode::kUsage, fmt::format("the federation's model is {}, not {}",
                                                    options_.model_id, printable(hello.model)));
    const auto known = members_.find(hello.cluster);
    const bool another = known != members_.end() && known->second.instance != hello.instance;
    if (another && known->second.routing_id != message.from && !is_cut(known->second)) {
        const Instant now = monotonic_now();
        if (cluster_claims_.claim(hello.cluster, hello.instance, now, known->second.last_heard) ==
            ClusterClaims::Answer::kRefuse)
            return refuse(ExitCode::kUsage,
                          fmt::format("a cluster named {} is connected already and goes on "
                                      "answering: give another --cluster-name",
                                      hello.cluster));
        // Code 4 is "not now": the client waits.
        return refuse(ExitCode::kUnreachable,
                      fmt::format("a cluster named {} is connected already, unless it is gone and "
                                  "not yet missed",
                                  hello.cluster));
    }
    const auto classes = judge_classes(federation_->classes(), hello);
    if (!classes) return refuse(classes.error().code, classes.error().message);
    if (*classes == ClassDecision::kMap) {
        send(message.from, ClassList{federation_->classes().names});
        return {};
    }
    if (*classes == ClassDecision::kAdopt) {
        const ClassNames theirs{hello.classes, hello.classes_sha256};
        log_info("the federation's classes are those of cluster {}: {}", hello.cluster,
                 theirs.text());
        ECOPIPE_RETURN_IF_ERROR(federation_->adopt_classes(theirs));
    }
    cluster_claims_.settle(hello.cluster);
    if (known == members_.end() && members_.size() >= options_.federation.limits.clusters_max)
        return refuse(ExitCode::kUnreachable,
                      fmt::format("{} clusters are connected already", members_.size()));
    if (known != members_.end()) {
        names_by_routing_id_.erase(known->second.routing_id);
        if (another) {
            log_info("cluster {} is back as another process", hello.cluster);
            federation_->restarted(hello.cluster);
        }
    } else {
        log_info("cluster {} joined with {} samples", hello.cluster, hello.samples);
        if (hello.classes_sha256.empty() && federation_->classes().known())
            log_warn("cluster {}: its data have no class names; its label 0 is taken for {}",
                     hello.cluster,
                     federation_->classes().names.empty()
                         ? "the others' first class"
                         : printable(federation_->classes().names.front()));
    }
    Member& member = members_[hello.cluster];
    // What was under way on another connection is lost.
    if (member.routing_id != message.from) transfers_.forget(hello.cluster);
    member = {
        .routing_id = message.from, .instance = hello.instance, .last_heard = monotonic_now()};
    names_by_routing_id_[message.from] = hello.cluster;
    const auto silence_ms = static_cast<std::uint32_t>(options_.peer_timeout_s * 1000);
    send(message.from, ClusterWelcome{.ping_interval_ms = std::max(1U, silence_ms / 10),
                                      .silence_max_ms = silence_ms,
                                      .client = options_.federation.client,
                                      .epoch = federation_->epoch()});
    return federation_->hello(
        {.cluster = hello.cluster, .samples = hello.samples, .label_counts = hello.label_counts},
        hello.epoch == federation_->epoch() ? hello.working_on : 0, hello.tests);
}

bool Server::is_cut(const Member& member) {
    return loop_.call([&] {
        const Ping ping{monotonic_now().time_since_epoch().count()};
        return !socket_->send(member.routing_id, {}, ping) && socket_->peer_gone();
    });
}

Result<void> Server::on_slice(const std::string& cluster, const UpdateSlice& slice) {
    note_disk(federation_->disk_is_low());
    if (disk_is_low_) {
        turn_away(cluster, slice.sequence, slice.slice);
        return {};
    }
    ECOPIPE_ASSIGN_OR_RETURN(const auto announced, federation_->announce(cluster, slice));
    if (announced)
        transfers_.start_upload(monotonic_now(),
                                {.cluster = cluster, .task = slice.sequence, .slice = slice.slice},
                                announced->offset, announced->bytes);
    return {};
}

Result<void> Server::on_chunk(const std::string& cluster, const UpdateChunk& chunk,
                              const std::vector<std::byte>& payload) {
    ECOPIPE_ASSIGN_OR_RETURN(const auto taken, federation_->chunk(cluster, chunk, payload));
    if (!taken.known) return {};  // the cluster announces it again when no verdict comes
    bytes_in_ += payload.size();
    const UploadKey key{.cluster = cluster, .task = chunk.sequence, .slice = chunk.slice};
    transfers_.took(monotonic_now(), key, payload.size());
    if (taken.left == 0 || taken.over) transfers_.end_upload(key);
    if (taken.no_room) {  // another program has taken it
        transfers_.end_uploads_of(cluster, chunk.sequence);
        note_disk(true);
        turn_away(cluster, chunk.sequence, chunk.slice);
    }
    return {};
}

void Server::note_disk(bool low) {
    if (low && !disk_is_low_) log_warn("the disk is nearly full: no update is taken");
    if (!low && disk_is_low_) log_warn("the disk has room again: updates are taken");
    disk_is_low_ = low;
    next_disk_check_ = monotonic_now() + kLowDiskEvery;
}

void Server::turn_away(const std::string& cluster, std::uint64_t task, std::uint16_t slice) {
    send_to(cluster,
            UploadGrant{.sequence = task,
                        .slice = slice,
                        .reason = "the server's disk is nearly full; it takes no update now"});
}

// Hands out what the pool has room for.
Result<void> Server::move_bytes() {
    const Instant now = monotonic_now();
    if (now >= next_disk_check_) note_disk(federation_->disk_is_low());
    while (const auto stalled =
               caught_up_ ? transfers_.take_stalled(now, kUploadPatience) : std::nullopt) {
        log_warn("cluster {} has stopped in the middle of its update", stalled->cluster);
        federation_->abandon_upload(stalled->task);
        transfers_.end_uploads_of(stalled->cluster, stalled->task);
    }
    if (caught_up_) transfers_.forget_stalled(now, kDownloadPatience);
    while (const auto grant = transfers_.next_grant())
        send_to(grant->key.cluster, UploadGrant{.sequence = grant->key.task,
                                                .slice = grant->key.slice,
                                                .offset = grant->offset,
                                                .until = grant->until,
                                                .reason = ""});
    std::uint64_t opened = 0;
    BlockSourcePtr source;  // of an older version, the last that was asked for
    while (const auto part = transfers_.next_part()) {
        if (part->version != federation_->version() && (!source || opened != part->version)) {
            auto older = federation_->model(part->version);
            if (!older) continue;  // it has a newer task
            source = std::move(*older);
            opened = part->version;
        }
        send_part(*part, source);
    }
    return {};
}

void Server::send_part(const Transfers::Part& part, const BlockSourcePtr& source) {
    Payload payload;
    if (part.version == federation_->version()) {
        const auto& global = federation_->global();
        payload = {std::as_bytes(std::span(*global)).subspan(part.offset, part.bytes),
                   std::const_pointer_cast<std::string>(global)};
    } else {
        const auto copy = std::make_shared<std::string>(part.bytes, '\0');
        const auto bytes =
            source->read(part.offset, part.bytes, 1, std::as_writable_bytes(std::span(*copy)));
        if (!bytes) return;
        payload = {*bytes, copy};
    }
    bytes_out_ += part.bytes;
    send_to(part.cluster, ModelChunk{.version = part.version, .offset = part.offset},
            std::move(payload));
}

// ---- the operator

Result<void> Server::serve_orders() {
    while (auto order = orders_.pop_until(monotonic_now())) {
        Result<void> done;
        const std::string& line = order->line;
        const std::size_t blank = std::min(line.find(' '), line.size());
        const std::string word = line.substr(0, blank);
        const std::string rest = line.substr(std::min(blank + 1, line.size()));
        if (word == "backup") {
            backups_.push_back(std::move(*order));
            continue;
        }
        if (word == "pause" || word == "resume")
            done = federation_->pause(word == "pause");
        else if (word == "finish")
            done = federation_->finish();
        else if (word == "admit")
            done = federation_->admit(rest);
        else
            done = fail(ExitCode::kUsage, "no command '" + printable(word) + "'");
        answer(*order, done);
    }
    return {};
}

void Server::answer(Order& order, const Result<void>& done) {
    if (done) log_info("operator: {}", printable(order.line));
    OrderedJson answer{{"done", done.has_value()}};
    if (!done) answer["error"] = done.error().message;
    order.answer.set_value(answer.dump());
}

void Server::publish_view() {
    next_view_ = monotonic_now() + kViewEvery;
    auto view = std::make_shared<FederationView>(federation_->view());
    for (SiteView& site : view->sites) {
        const auto member = members_.find(site.cluster);
        site.connected = member != members_.end();
        if (site.connected)
            site.last_seen_s = to_ms(monotonic_now() - member->second.last_heard) / 1000;
    }
    view->bytes_in = bytes_in_;
    view->bytes_out = bytes_out_;
    view->credit_bytes = transfers_.used();
    view->credit_bytes_max = transfers_.bytes_max();
    page_.update(*view, unix_ms_now());
    control_->publish(std::move(view));
}

}  // namespace

Result<ExitCode> run_server(ServerOptions options, const ModelLayout& layout, std::string initial) {
    // Before anything of it is read, and before the control socket of whoever serves it is taken.
    const std::string& state = options.federation.state_directory;
    ECOPIPE_RETURN_IF_ERROR(make_directories(state));
    ECOPIPE_ASSIGN_OR_RETURN(const DirectoryLock owned, DirectoryLock::take(state, "--state"));
    return Server(std::move(options), layout).run(std::move(initial));
}

}  // namespace ecopipe
