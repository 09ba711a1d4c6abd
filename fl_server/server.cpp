#include "fl_server/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>

#include "core/check.h"
#include "core/command_line.h"
#include "core/files.h"
#include "core/inbox.h"
#include "core/log.h"
#include "fl_server/admission.h"
#include "fl_server/evaluator.h"
#include "fl_server/strategy.h"
#include "stage_runtime/model/safetensors.h"
#include "transport/message_socket.h"
#include "transport/messages.h"

namespace ecopipe {
namespace {

constexpr auto kTick = std::chrono::milliseconds(50);
constexpr auto kEndLinger = std::chrono::milliseconds(500);
constexpr std::size_t kModelChunkMax = 1U << 20;

// One update under way.
struct Arriving {
    UpdateSlice slice;
    std::string bytes;
    Instant started{};
};

struct Member {
    std::string routing_id;
    ClusterHello hello;
    Instant last_heard{};
    std::optional<Arriving> arriving;
    std::uint64_t answered_sequence = 0;  // the newest with a verdict
    Verdict last_verdict;
};

struct Received {
    std::string from;
    FrameHeader header;
    std::vector<std::byte> body;
    std::vector<std::byte> payload;
};

// The protocol runs on the main thread; the network thread only queues. Memory between them is
// bounded: a cluster may have four MiB of update chunks under way, and asks for the model in a
// window of its own.
class Server {
  public:
    explicit Server(ServerOptions options)
        : options_(std::move(options)),
          machine_(options_.rules),
          global_(std::move(options_.weights)) {}

    Result<ExitCode> run();

  private:
    Result<void> open();
    Result<void> handle(const Received& message);
    Result<void> on_hello(const Received& message, const ClusterHello& hello);
    void on_model_request(Member& member, const ModelRequest& request);
    Result<void> on_slice(const std::string& cluster, Member& member, const UpdateSlice& slice);
    Result<void> on_chunk(const std::string& cluster, Member& member, const UpdateChunk& chunk,
                          const std::vector<std::byte>& payload);
    Result<void> conclude(const std::string& cluster, Member& member, const UpdateSlice& slice,
                          const std::string& reason);
    Result<void> obey(RoundActions actions);
    Result<void> aggregate(const round_action::Aggregate& action);
    void send_task(const std::string& cluster);
    Result<void> watch_members();
    void publish_model();
    void finish(ExitCode code, const std::string& reason);
    template <class Body>
    void send(const std::string& to, const Body& body, Payload payload = {}) {
        loop_.call([&] { static_cast<void>(socket_->send(to, {}, body, payload)); });
    }

    ServerOptions options_;
    RoundMachine machine_;
    TensorMap global_;
    std::uint64_t version_ = 0;
    std::vector<TensorEntry> entries_;
    std::shared_ptr<std::string> model_bytes_;  // shared with sends that are under way
    std::string model_sha256_;
    std::unique_ptr<Strategy> strategy_;
    std::unique_ptr<Evaluator> evaluator_;
    std::optional<LineAppender> rounds_log_;
    std::map<std::string, Member> members_;
    std::map<std::string, std::string> names_by_routing_id_;
    std::vector<AdmittedUpdate> updates_;
    std::uint64_t bytes_in_ = 0;
    Instant round_started_{};
    Instant next_ping_{};
    bool finished_ = false;
    Inbox<Received> inbox_;
    NetLoop loop_;
    std::unique_ptr<MessageSocket> socket_;
};

Result<void> Server::open() {
    ECOPIPE_ASSIGN_OR_RETURN(strategy_, make_strategy(options_.strategy));
    for (const NamedTensor& entry : global_)
        if (entry.tensor.dtype() == DType::kF16 || entry.tensor.dtype() == DType::kBF16)
            return fail(
                ExitCode::kUsage,
                fmt::format("tensor {}: a federation cannot average half precision", entry.name));
    ECOPIPE_RETURN_IF_ERROR(make_directories(options_.state_directory));
    const std::string log_path = options_.state_directory + "/rounds.jsonl";
    if (std::filesystem::exists(log_path))
        return fail(ExitCode::kUsage,
                    fmt::format("--state {}: holds a federation already; give another directory",
                                options_.state_directory));
    if (options_.eval_data) {
        ECOPIPE_ASSIGN_OR_RETURN(evaluator_,
                                 Evaluator::create(options_.model, *options_.eval_data));
    }
    loop_.set_keys(options_.keys);
    ECOPIPE_RETURN_IF_ERROR(loop_.call([this]() -> Result<void> {
        auto socket = MessageSocket::bind(
            loop_, options_.bind,
            [this](const Incoming& m) {
                inbox_.push({std::string(m.from),
                             m.header,
                             {m.body.begin(), m.body.end()},
                             {m.payload.begin(), m.payload.end()}});
            },
            [this](std::string_view from, const Error& error) {
                log_warn("a bad message: {}", error.message);
                if (error.code == ExitCode::kMismatch)
                    static_cast<void>(socket_->send(from, {}, Refuse{5, "another protocol"}));
            },
            "federation");
        if (!socket) return tl::unexpected<Error>(socket.error());
        socket_ = std::move(*socket);
        return {};
    }));
    ECOPIPE_ASSIGN_OR_RETURN(LineAppender log, LineAppender::open(log_path));
    rounds_log_.emplace(std::move(log));
    entries_ = entries_of(global_);
    publish_model();
    return write_safetensors(options_.state_directory + "/model.safetensors", global_);
}

void Server::publish_model() {
    model_bytes_ = std::make_shared<std::string>(flatten(global_));
    model_sha256_ = sha256_hex(*model_bytes_);
}

Result<ExitCode> Server::run() {
    ECOPIPE_RETURN_IF_ERROR(open());
    log_info("listening on {} for {} clusters, {} rounds of {}",
             Endpoint{options_.bind.host, socket_->port()}.text(), options_.rules.min_clusters,
             options_.rules.rounds, strategy_->name());
    while (!finished_) {
        if (signal_received() != 0) {
            finish(ExitCode::kRunFailed, "the server was stopped");
            return static_cast<ExitCode>(128 + signal_received());
        }
        Result<void> done;
        if (auto message = inbox_.pop_until(monotonic_now() + kTick)) done = handle(*message);
        if (done) done = watch_members();
        if (done) {
            done = obey(machine_.on(monotonic_now(), round_event::Tick{}));
        }
        if (!done) {
            finish(done.error().code, done.error().message);
            return tl::unexpected<Error>(done.error());
        }
    }
    finish(ExitCode::kDone, "all rounds are done");
    return ExitCode::kDone;
}

void Server::finish(ExitCode code, const std::string& reason) {
    for (const auto& [cluster, member] : members_)
        send(member.routing_id, FederationEnd{static_cast<std::uint8_t>(code), reason});
    static_cast<void>(inbox_.pop_until(monotonic_now() + kEndLinger));
    loop_.call([this] { socket_.reset(); });
}

Result<void> Server::watch_members() {
    const Instant now = monotonic_now();
    if (now < next_ping_) return {};
    const auto silence_max = from_ms(options_.peer_timeout_s * 1000);
    next_ping_ = now + silence_max / 10;
    std::vector<std::string> gone;
    for (const auto& [cluster, member] : members_) {
        if (now - member.last_heard > silence_max) gone.push_back(cluster);
        send(member.routing_id, Ping{now.time_since_epoch().count()});
    }
    for (const std::string& cluster : gone) {
        log_warn("cluster {} has said nothing for {} s", cluster, options_.peer_timeout_s);
        names_by_routing_id_.erase(members_.at(cluster).routing_id);
        members_.erase(cluster);
        ECOPIPE_RETURN_IF_ERROR(obey(machine_.on(now, round_event::Disconnected{cluster})));
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
    Member& member = members_.at(cluster);
    member.last_heard = monotonic_now();
    if (type == MessageType::kModelRequest) {
        if (const auto request = decode<ModelRequest>(body)) on_model_request(member, *request);
    } else if (type == MessageType::kUpdateSlice) {
        if (const auto slice = decode<UpdateSlice>(body)) return on_slice(cluster, member, *slice);
    } else if (type == MessageType::kUpdateChunk) {
        if (const auto chunk = decode<UpdateChunk>(body))
            return on_chunk(cluster, member, *chunk, message.payload);
    } else if (type != MessageType::kPong) {
        log_warn("cluster {}: unexpected message {}", cluster, message.header.type);
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
    if (hello.model != options_.model.id())
        return refuse(ExitCode::kUsage, fmt::format("the federation's model is {}, not {}",
                                                    options_.model.id(), printable(hello.model)));
    const auto silence_ms = static_cast<std::uint32_t>(options_.peer_timeout_s * 1000);
    const ClusterWelcome welcome{std::max(1U, silence_ms / 10), silence_ms, options_.client};
    if (const auto known = members_.find(hello.cluster); known != members_.end()) {
        if (known->second.hello.instance != hello.instance)
            return refuse(ExitCode::kUsage,
                          fmt::format("a cluster named {} is connected already", hello.cluster));
        names_by_routing_id_.erase(known->second.routing_id);
        known->second.routing_id = message.from;
        known->second.last_heard = monotonic_now();
        names_by_routing_id_[message.from] = hello.cluster;
        send(message.from, welcome);
        return {};
    }
    Member member;
    member.routing_id = message.from;
    member.hello = hello;
    member.last_heard = monotonic_now();
    members_[hello.cluster] = std::move(member);
    names_by_routing_id_[message.from] = hello.cluster;
    send(message.from, welcome);
    log_info("cluster {} joined with {} samples", hello.cluster, hello.samples);
    return obey(machine_.on(monotonic_now(), round_event::Connected{hello.cluster}));
}

void Server::send_task(const std::string& cluster) {
    const auto member = members_.find(cluster);
    if (member == members_.end()) return;
    send(member->second.routing_id,
         Task{machine_.round(), version_, options_.client, entries_, model_sha256_});
}

void Server::on_model_request(Member& member, const ModelRequest& request) {
    if (request.version != version_ || request.offset >= model_bytes_->size()) return;
    const std::size_t part = std::min<std::size_t>(
        {request.bytes, kModelChunkMax, model_bytes_->size() - request.offset});
    send(member.routing_id, ModelChunk{request.version, request.offset},
         Payload{std::as_bytes(std::span(*model_bytes_)).subspan(request.offset, part),
                 model_bytes_});
}

Result<void> Server::on_slice(const std::string& cluster, Member& member,
                              const UpdateSlice& slice) {
    if (slice.sequence <= member.answered_sequence) {
        if (slice.sequence == member.answered_sequence)
            send(member.routing_id, member.last_verdict);
        return {};
    }
    std::string reason;
    if (!machine_.expects_update_of(cluster)) {
        reason = "no update of this cluster is expected now";
    } else {
        reason = check_announcement(slice,
                                    {version_, model_bytes_->size(),
                                     static_cast<std::uint32_t>(options_.info.layers.size() - 1)});
    }
    if (!reason.empty()) return conclude(cluster, member, slice, reason);
    member.arriving = Arriving{slice, {}, monotonic_now()};
    return {};
}

Result<void> Server::on_chunk(const std::string& cluster, Member& member, const UpdateChunk& chunk,
                              const std::vector<std::byte>& payload) {
    if (!member.arriving || member.arriving->slice.sequence != chunk.sequence) return {};
    Arriving& arriving = *member.arriving;
    if (chunk.offset != arriving.bytes.size() ||
        payload.size() > arriving.slice.bytes - arriving.bytes.size())
        return {};
    arriving.bytes.append(reinterpret_cast<const char*>(payload.data()), payload.size());
    bytes_in_ += payload.size();
    if (arriving.bytes.size() < arriving.slice.bytes) {
        send(member.routing_id, Credit{payload.size()});
        return {};
    }
    const std::string reason = check_contents(arriving.slice, entries_, arriving.bytes);
    if (reason.empty())
        updates_.push_back(
            {cluster, version_, arriving.slice.samples, unflatten(entries_, arriving.bytes)});
    return conclude(cluster, member, arriving.slice, reason);
}

Result<void> Server::conclude(const std::string& cluster, Member& member, const UpdateSlice& slice,
                              const std::string& reason) {
    member.answered_sequence = slice.sequence;
    member.last_verdict = {slice.sequence, reason.empty(), reason};
    send(member.routing_id, member.last_verdict);
    member.arriving.reset();
    if (!reason.empty()) {
        log_warn("round {}: rejected the update of {}: {}", machine_.round(), cluster, reason);
        return obey(machine_.on(monotonic_now(), round_event::UpdateRejected{cluster, reason}));
    }
    log_info("round {}: update of {}, {} samples, loss {:.4f}, {:.1f} s", machine_.round(), cluster,
             slice.samples, slice.train_loss, slice.seconds);
    return obey(machine_.on(monotonic_now(), round_event::UpdateAdmitted{cluster}));
}

Result<void> Server::obey(RoundActions actions) {
    for (const RoundAction& action : actions) {
        if (const auto* task = std::get_if<round_action::SendTask>(&action)) {
            if (updates_.empty() && bytes_in_ == 0) round_started_ = monotonic_now();
            send_task(task->cluster);
        } else if (const auto* close = std::get_if<round_action::Aggregate>(&action)) {
            ECOPIPE_RETURN_IF_ERROR(aggregate(*close));
            ECOPIPE_RETURN_IF_ERROR(obey(machine_.on(monotonic_now(), round_event::Aggregated{})));
        } else {
            finished_ = true;
        }
    }
    return {};
}

Result<void> Server::aggregate(const round_action::Aggregate& action) {
    OrderedJson clusters = OrderedJson::array();
    std::uint64_t samples = 0;
    std::sort(updates_.begin(), updates_.end(),
              [](const auto& a, const auto& b) { return a.cluster < b.cluster; });
    for (const AdmittedUpdate& update : updates_) {
        clusters.push_back(update.cluster);
        samples += update.samples;
    }
    global_ = strategy_->aggregate(global_, std::move(updates_));
    updates_.clear();
    ++version_;
    publish_model();
    ECOPIPE_RETURN_IF_ERROR(
        write_safetensors(options_.state_directory + "/model.safetensors", global_));
    OrderedJson rejected = OrderedJson::object();
    for (const auto& [cluster, reason] : action.rejected) rejected[cluster] = reason;
    OrderedJson line{{"round", action.round},
                     {"wall_s", to_ms(monotonic_now() - round_started_) / 1000},
                     {"strategy", strategy_->name()},
                     {"group", 0},
                     {"clusters", std::move(clusters)},
                     {"samples", samples}};
    std::string result;
    if (evaluator_) {
        ECOPIPE_ASSIGN_OR_RETURN(const Evaluation evaluation, evaluator_->evaluate(global_));
        line["accuracy"] = evaluation.accuracy;
        line["loss"] = evaluation.loss;
        result = fmt::format(", accuracy {:.2f} %", 100 * evaluation.accuracy);
    }
    line["bytes_in"] = bytes_in_;
    line["rejected"] = std::move(rejected);
    bytes_in_ = 0;
    log_info("round {} done{}", action.round, result);
    return rounds_log_->append(line.dump());
}

}  // namespace

Result<ExitCode> run_server(ServerOptions options) { return Server(std::move(options)).run(); }

}  // namespace ecopipe
