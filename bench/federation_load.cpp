// ecopipe-bench federation: many clusters in one process, which pull the model, send an update that
// costs nothing to make, and wait for the verdict, against a real server. It measures the server:
// how long a round takes, how many bytes a second it moves, how much memory it had at most.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <thread>

#include "bench/subcommands.h"
#include "core/command_line.h"
#include "core/files.h"
#include "core/log.h"
#include "core/mutex.h"
#include "core/open_files.h"
#include "transport/net/message_socket.h"
#include "transport/wire/federation_messages.h"
#include "transport/wire/messages.h"

namespace ecopipe {
namespace {

constexpr std::size_t kChunk = 512U << 10;  // as ecopipe-train
constexpr std::size_t kPullWindow = 4;      // requests under way, likewise
constexpr int kDialling = 12;  // at a time: fewer than a server bears that have said nothing
constexpr int kClustersPerLoop = 250;  // a ZeroMQ context has 1023 sockets; a cluster needs three
constexpr auto kTick = std::chrono::milliseconds(50);
constexpr auto kHelloEvery = std::chrono::seconds(3);  // of one that hears nothing
constexpr auto kAgainAfter = std::chrono::seconds(5);  // without an answer
constexpr float kStep = 1e-4F;

struct Update {
    std::shared_ptr<std::string> bytes;
    std::string sha256;
};

// The models that the server hands out, each kept once however many clusters receive it.
class Models {
  public:
    // A part that one cluster received. Errors: another one received something else there.
    Result<void> received(std::uint64_t version, std::size_t offset,
                          std::span<const std::byte> part) {
        const MutexLock lock(mutex_);
        std::string& bytes = models_[version];
        const std::string_view view(reinterpret_cast<const char*>(part.data()), part.size());
        if (offset == bytes.size()) bytes += view;
        if (std::string_view(bytes).substr(std::min(offset, bytes.size()), view.size()) == view)
            return {};
        return fail(ExitCode::kRunFailed,
                    fmt::format("version {} is not the same for all clusters", version));
    }
    // What a cluster makes of a model that is there: each element of floats a small step away.
    Result<Update> update(const Task& task) {
        const MutexLock lock(mutex_);
        Update& update = updates_[task.base_version];
        if (update.bytes) return update;
        const std::string& model = models_[task.base_version];
        if (sha256_hex(model) != task.sha256)
            return fail(ExitCode::kRunFailed, "the model does not have the hash of its task");
        auto bytes = std::make_shared<std::string>(model);
        std::size_t at = 0;
        for (const TensorEntry& entry : task.tensors) {
            const std::size_t size = *flat_bytes({entry});
            for (std::size_t i = at; entry.dtype == DType::kF32 && i < at + size; i += 4) {
                float value = 0;
                std::memcpy(&value, bytes->data() + i, sizeof value);
                value += kStep;
                std::memcpy(bytes->data() + i, &value, sizeof value);
            }
            at += size;
        }
        update = {bytes, sha256_hex(*bytes)};
        return update;
    }

  private:
    Mutex mutex_;
    std::map<std::uint64_t, std::string> models_ ECOPIPE_GUARDED_BY(mutex_);
    std::map<std::uint64_t, Update> updates_ ECOPIPE_GUARDED_BY(mutex_);
};

struct RoundTimes {
    Instant first_task{};
    Instant last_pulled{};
    Instant last_verdict{};
    std::size_t accepted = 0;
    std::size_t rejected = 0;
};

struct Tally {
    std::size_t joined = 0;
    std::size_t ended = 0;
    std::uint64_t model_bytes = 0;
    std::map<std::uint64_t, RoundTimes> rounds;
    std::optional<Error> error;  // the first
};

// What the main thread sees of the clusters.
class Scoreboard {
  public:
    template <class F>
    void note(F&& change) {
        const MutexLock lock(mutex_);
        change(tally_);
    }
    void failed(const Error& error) {
        note([&](Tally& tally) {
            if (!tally.error) tally.error = error;
        });
    }
    [[nodiscard]] Tally read() const {
        const MutexLock lock(mutex_);
        return tally_;
    }

  private:
    mutable Mutex mutex_;
    Tally tally_ ECOPIPE_GUARDED_BY(mutex_);
};

struct Common {
    Endpoint server;
    std::string model;
    std::uint64_t samples = 0;
    Models models;
    Scoreboard score;
};

// One cluster's protocol. Network thread only, once made.
class LoadCluster {
  public:
    LoadCluster(NetLoop& loop, Common& common, std::size_t index) : loop_(loop), common_(common) {
        hello_.cluster = fmt::format("load-{:04}", index);
        hello_.program_version = kVersion;
        hello_.model = common.model;
        hello_.instance = index + 1;
        hello_.samples = common.samples;
    }

    void dial() {
        auto socket = MessageSocket::dial(
            loop_, common_.server, [this](const Incoming& m) { on_message(m); },
            [this](std::string_view, const Error& error) { common_.score.failed(error); }, "");
        if (!socket) return common_.score.failed(socket.error());
        socket_ = std::move(*socket);
        greet();
    }

  private:
    template <class Body>
    void send(const Body& body, Payload payload = {}) {
        if (!socket_->send("", {}, body, std::move(payload))) lost_ = true;
    }
    template <class Body>
    static Result<Body> read(const Incoming& message) {
        return decode<Body>(message.body);
    }
    // Hello until the server is heard, and after each silence. A message that could not leave is
    // asked for again by it.
    void greet() {
        const Instant now = monotonic_now();
        if (now - last_heard_ > kHelloEvery || !joined_ || std::exchange(lost_, false))
            static_cast<void>(socket_->send("", {}, hello_));
        if (joined_ && now - last_progress_ > kAgainAfter) again();
        loop_.at(now + (joined_ ? Duration(kHelloEvery) : Duration(kTick)), lifeline_,
                 [this] { greet(); });
    }
    void on_message(const Incoming& message) {
        last_heard_ = monotonic_now();
        if (const auto done = handle(message); !done) common_.score.failed(done.error());
    }
    Result<void> handle(const Incoming& message);
    Result<void> on_task(Task task);
    Result<void> on_chunk(const ModelChunk& chunk, std::span<const std::byte> payload);
    void on_grant(const UploadGrant& grant);
    void on_verdict(const Verdict& verdict);
    void ask();
    void announce();
    // What was under way is lost, with a connection or because the server could not take it.
    void again() {
        last_progress_ = monotonic_now();
        asked_ = received_;
        if (update_)
            announce();
        else if (total_ > 0)
            ask();
    }

    NetLoop& loop_;
    Common& common_;
    Lifeline lifeline_ = make_lifeline();
    std::unique_ptr<MessageSocket> socket_;
    ClusterHello hello_;
    Instant last_heard_{};
    Instant last_progress_{};
    bool joined_ = false;
    bool lost_ = false;
    Task task_;
    std::size_t total_ = 0;     // bytes of its model
    std::size_t received_ = 0;  // of them
    std::size_t asked_ = 0;
    std::optional<Update> update_;
    std::size_t sent_ = 0;
    bool announced_ = false;  // and no grant since
};

Result<void> LoadCluster::handle(const Incoming& message) {
    switch (static_cast<MessageType>(message.header.type)) {
        case MessageType::kPing: {
            ECOPIPE_ASSIGN_OR_RETURN(const Ping ping, read<Ping>(message));
            send(Pong{ping.sent_ns, last_heard_.time_since_epoch().count(), 0});
            return {};
        }
        case MessageType::kClusterWelcome:
            if (!std::exchange(joined_, true))
                common_.score.note([](Tally& tally) { ++tally.joined; });
            again();
            return {};
        case MessageType::kTask: {
            ECOPIPE_ASSIGN_OR_RETURN(Task task, read<Task>(message));
            return on_task(std::move(task));
        }
        case MessageType::kModelChunk: {
            ECOPIPE_ASSIGN_OR_RETURN(const ModelChunk chunk, read<ModelChunk>(message));
            return on_chunk(chunk, message.payload);
        }
        case MessageType::kUploadGrant: {
            ECOPIPE_ASSIGN_OR_RETURN(const UploadGrant grant, read<UploadGrant>(message));
            on_grant(grant);
            return {};
        }
        case MessageType::kVerdict: {
            ECOPIPE_ASSIGN_OR_RETURN(const Verdict verdict, read<Verdict>(message));
            on_verdict(verdict);
            return {};
        }
        case MessageType::kRefuse: {
            ECOPIPE_ASSIGN_OR_RETURN(const Refuse refuse, read<Refuse>(message));
            return fail(static_cast<ExitCode>(refuse.code), printable(refuse.reason));
        }
        case MessageType::kFederationEnd:
            common_.score.note([](Tally& tally) { ++tally.ended; });
            return {};
        default:
            return {};
    }
}

Result<void> LoadCluster::on_task(Task task) {
    if (task.sequence <= hello_.working_on) return {};
    task_ = std::move(task);
    hello_.working_on = task_.sequence;
    hello_.epoch = task_.epoch;
    last_progress_ = last_heard_;
    total_ = *flat_bytes(task_.tensors);
    received_ = asked_ = 0;
    update_.reset();
    common_.score.note([&](Tally& tally) {
        tally.model_bytes = total_;
        RoundTimes& round = tally.rounds[task_.round];
        if (round.first_task == Instant{}) round.first_task = monotonic_now();
    });
    ask();
    return {};
}

void LoadCluster::ask() {
    while (asked_ < total_ && asked_ - received_ < kPullWindow * kChunk) {
        const auto part = static_cast<std::uint32_t>(std::min(kChunk, total_ - asked_));
        send(ModelRequest{task_.base_version, asked_, part, received_});
        asked_ += part;
    }
}

Result<void> LoadCluster::on_chunk(const ModelChunk& chunk, std::span<const std::byte> payload) {
    last_progress_ = last_heard_;
    if (chunk.version != task_.base_version || chunk.offset != received_ || update_) return {};
    ECOPIPE_RETURN_IF_ERROR(common_.models.received(chunk.version, chunk.offset, payload));
    received_ += payload.size();
    ask();
    if (received_ < total_) return {};
    send(ModelRequest{task_.base_version, total_, 1, total_});  // all of it is here
    common_.score.note(
        [&](Tally& tally) { tally.rounds[task_.round].last_pulled = monotonic_now(); });
    ECOPIPE_ASSIGN_OR_RETURN(update_, common_.models.update(task_));
    announce();
    return {};
}

void LoadCluster::announce() {
    UpdateSlice slice;
    slice.base_version = task_.base_version;
    slice.sequence = task_.sequence;
    slice.epoch = task_.epoch;
    slice.last_layer = kWireLayersMax - 1;
    slice.samples = common_.samples;
    slice.bytes = total_;
    slice.sha256 = update_->sha256;
    announced_ = true;
    send(slice);
}

void LoadCluster::on_grant(const UploadGrant& grant) {
    if (!update_ || grant.sequence != task_.sequence || !grant.reason.empty()) return;
    last_progress_ = last_heard_;
    if (std::exchange(announced_, false)) sent_ = grant.offset;
    for (const std::size_t end = std::min<std::size_t>(grant.until, total_); sent_ < end;) {
        const std::size_t part = std::min(kChunk, end - sent_);
        send(UpdateChunk{task_.sequence, 0, sent_},
             Payload{std::as_bytes(std::span(*update_->bytes)).subspan(sent_, part),
                     update_->bytes});
        sent_ += part;
    }
}

void LoadCluster::on_verdict(const Verdict& verdict) {
    if (!update_ || verdict.sequence != task_.sequence) return;
    update_.reset();
    total_ = 0;
    common_.score.note([&](Tally& tally) {
        RoundTimes& round = tally.rounds[task_.round];
        ++(verdict.accepted ? round.accepted : round.rejected);
        round.last_verdict = monotonic_now();
    });
}

// The most memory that a process of this machine ever held, 0 when it cannot be read.
double peak_mib(std::int64_t pid) {
    std::ifstream status(fmt::format("/proc/{}/status", pid));
    for (std::string word; status >> word;) {
        double kib = 0;
        if (word == "VmHWM:" && status >> kib) return kib / 1024;
    }
    return 0;
}

// The clusters, in network threads of a few hundred each; they go before their threads do.
class Crowd {
  public:
    Crowd(Common& common, std::size_t clusters) {
        for (std::size_t i = 0; i < clusters; ++i) {
            if (i % kClustersPerLoop == 0) groups_.push_back(std::make_unique<Group>());
            Group& group = *groups_.back();
            group.clusters.push_back(std::make_unique<LoadCluster>(group.loop, common, i));
        }
    }
    ~Crowd() {
        for (const auto& group : groups_) group->loop.call([&] { group->clusters.clear(); });
    }
    Crowd(const Crowd&) = delete;
    Crowd& operator=(const Crowd&) = delete;
    void dial(std::size_t index) {
        Group& group = *groups_[index / kClustersPerLoop];
        LoadCluster& cluster = *group.clusters[index % kClustersPerLoop];
        group.loop.post([&cluster] { cluster.dial(); });
    }

  private:
    struct Group {
        NetLoop loop;
        std::vector<std::unique_ptr<LoadCluster>> clusters;
    };
    std::vector<std::unique_ptr<Group>> groups_;
};

void print(const Tally& tally, double connect_s, double server_mib, bool json) {
    OrderedJson rounds = OrderedJson::array();
    for (const auto& [number, round] : tally.rounds) {
        const double pull_s = to_ms(round.last_pulled - round.first_task) / 1000;
        const double round_s = to_ms(round.last_verdict - round.first_task) / 1000;
        const auto both_ways = static_cast<double>(2 * tally.model_bytes * round.accepted);
        rounds.push_back({{"round", number},
                          {"accepted", round.accepted},
                          {"rejected", round.rejected},
                          {"pulled_s", pull_s},
                          {"round_s", round_s},
                          {"mb_per_s", both_ways / 1e6 / round_s}});
    }
    if (json) {
        fmt::print("{}\n", OrderedJson{{"clusters", tally.joined},
                                       {"model_bytes", tally.model_bytes},
                                       {"connect_s", connect_s},
                                       {"server_peak_mib", server_mib},
                                       {"rounds", rounds}}
                               .dump());
        return;
    }
    fmt::print("{} clusters joined in {:.1f} s, a model of {:.1f} MB\n", tally.joined, connect_s,
               static_cast<double>(tally.model_bytes) / 1e6);
    for (const auto& round : rounds)
        fmt::print(
            "round {}: {} updates accepted, {} rejected; the model was everywhere after {:.1f} s, "
            "the last verdict came after {:.1f} s: {:.0f} MB/s both ways\n",
            round["round"].get<std::uint64_t>(), round["accepted"].get<std::size_t>(),
            round["rejected"].get<std::size_t>(), round["pulled_s"].get<double>(),
            round["round_s"].get<double>(), round["mb_per_s"].get<double>());
    if (server_mib > 0) fmt::print("the server had at most {:.0f} MiB in memory\n", server_mib);
}

}  // namespace

Result<ExitCode> bench_federation(int argc, const char* const* argv) {
    CommandLine line("ecopipe-bench federation", "many clusters against a federation's server");
    line.text("server", "tcp://ADDRESS:PORT of a server that starts when all are connected");
    line.text("model", "that the server has, as it names it", "fashion_cnn");
    line.integer("clusters", "to connect", {1, 100000}, 1000);
    line.integer("samples", "that each says to have", {1, 10000000}, 100);
    line.integer("server-pid", "the server's process on this machine, whose memory is watched",
                 {1, INT32_MAX});
    line.number("timeout-s", "until the federation must have ended", {1, 86400}, 600);
    line.flag("json", "as JSON");
    ECOPIPE_ASSIGN_OR_RETURN(const auto leave, line.parse(argc, argv));
    if (leave) return *leave;
    if (!line.has("server")) return fail(ExitCode::kUsage, "--server is missing");
    Common common;
    ECOPIPE_ASSIGN_OR_RETURN(common.server, parse_endpoint(line.get_text("server"), "--server"));
    common.model = line.get_text("model");
    common.samples = static_cast<std::uint64_t>(line.get_integer("samples"));
    const auto clusters = static_cast<std::size_t>(line.get_integer("clusters"));
    raise_open_files();
    watch_signals();
    Crowd crowd(common, clusters);
    const Instant started = monotonic_now();
    const Instant deadline = started + from_ms(line.get_number("timeout-s") * 1000);
    std::size_t dialled = 0;
    double connect_s = 0;
    double server_mib = 0;
    for (;;) {
        const Tally tally = common.score.read();
        if (line.has("server-pid"))
            server_mib = std::max(server_mib, peak_mib(line.get_integer("server-pid")));
        if (tally.error) return tl::unexpected<Error>(*tally.error);
        if (connect_s == 0 && tally.joined == clusters)
            connect_s = to_ms(monotonic_now() - started) / 1000;
        if (tally.ended == clusters) {
            print(tally, connect_s, server_mib, line.get_flag("json"));
            return ExitCode::kDone;
        }
        if (signal_received() != 0) return static_cast<ExitCode>(128 + signal_received());
        if (monotonic_now() > deadline)
            return fail(ExitCode::kRunFailed,
                        fmt::format("{} of {} clusters joined, {} saw the federation's end",
                                    tally.joined, clusters, tally.ended));
        while (dialled < clusters && dialled < tally.joined + kDialling) crowd.dial(dialled++);
        std::this_thread::sleep_for(dialled < clusters ? std::chrono::milliseconds(1)
                                                       : std::chrono::milliseconds(20));
    }
}

}  // namespace ecopipe
