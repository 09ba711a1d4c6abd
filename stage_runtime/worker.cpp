#include "stage_runtime/worker.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>

#include "core/check.h"
#include "core/command_line.h"
#include "core/files.h"
#include "core/inbox.h"
#include "core/log.h"
#include "core/tensor_memory.h"
#include "domain/plan_index.h"
#include "planner/schedule/plan_file.h"
#include "stage_runtime/engine/executor.h"
#include "stage_runtime/engine/numeric_class.h"
#include "stage_runtime/host_facts.h"
#include "stage_runtime/link_probe.h"
#include "stage_runtime/portal_link.h"
#include "stage_runtime/slow_switch.h"
#include "stage_runtime/stage_machine.h"
#include "stage_runtime/state_exchange.h"
#include "stage_runtime/waiting_tensors.h"
#include "stage_runtime/work_clock.h"

namespace ecopipe {
namespace {

constexpr auto kLateMax = std::chrono::milliseconds(50);  // that an emulated action catches up
constexpr auto kTick = std::chrono::milliseconds(50);     // how soon a signal is noticed
constexpr auto kLoadTimeout = std::chrono::seconds(20);   // after Configure without any progress
constexpr auto kReachWait = std::chrono::seconds(5);      // for channels, then the portal is told
constexpr auto kLeaveWait = std::chrono::seconds(30);     // for others to take this one's layers
constexpr auto kEndWait = std::chrono::seconds(5);        // for the portal's word after a failure
constexpr std::size_t kModelFileBytesMax = 8ULL << 30;

struct ControlMessage {
    FrameHeader header;
    std::vector<std::byte> body;
};
struct PeerAttached {
    std::string peer;
    std::uint64_t instance;
};
struct PortalLost {
    Error error;
};
using WorkerEvent = std::variant<ControlMessage, Delivery, PeerAttached, PortalLost>;

std::int64_t ns(Instant instant) { return instant.time_since_epoch().count(); }

// A hook for tests: with ECOPIPE_TEST_DIE_AT_COMMIT=N in the environment the process is killed
// after it has applied step N (counted from 0), before it says so.
void die_if_told(std::uint64_t step) {
    static const char* const told = std::getenv("ECOPIPE_TEST_DIE_AT_COMMIT");
    if (told != nullptr && std::strtoull(told, nullptr, 10) == step) ::raise(SIGKILL);
}

Result<std::string> find_torchscript(const std::string& directory, const std::string& sha256) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
        const std::string path = entry.path().string();
        if (!entry.is_regular_file() || entry.path().extension() != ".pt") continue;
        const auto bytes = read_file(path, kModelFileBytesMax);
        if (bytes && sha256_hex(*bytes) == sha256) return path;
    }
    return fail(
        ExitCode::kBadFile,
        fmt::format(
            "the TorchScript file with SHA-256 {} is not in {}; copy it there: scp MODEL.pt {}:{}/",
            sha256, directory, host_name(), std::filesystem::absolute(directory, error).string()));
}

class Worker {
  public:
    explicit Worker(const WorkerOptions& options)
        : options_(options),
          link_(loop_, activity_,
                {[this](const FrameHeader& header, std::vector<std::byte> body) {
                     if (ends_work(header)) ++superseded_;
                     inbox_.push(ControlMessage{header, std::move(body)});
                 },
                 [this](Error error) {
                     ++superseded_;
                     inbox_.push(PortalLost{std::move(error)});
                 }}),
          data_(loop_, options.device,
                {[this](Delivery delivery) { inbox_.push(std::move(delivery)); },
                 [this](const std::string& peer, std::uint64_t instance) {
                     inbox_.push(PeerAttached{peer, instance});
                 },
                 [this] { ++activity_.progress; }}),
          state_(data_) {}

    Result<ExitCode> run() {
        ECOPIPE_ASSIGN_OR_RETURN(numeric_class_, measure_numeric_class(options_.threads));
        loop_.set_keys(options_.security.keys);
        data_.set_security(options_.security);
        data_.set_portal(options_.portal_name);
        data_.emulate(options_.links, options_.link);
        ECOPIPE_ASSIGN_OR_RETURN(
            data_port_,
            data_.bind({options_.data_bind, static_cast<std::uint16_t>(options_.data_port)}));
        log_debug("{} listens for tensors on {}", options_.device,
                  Endpoint{options_.data_bind, data_port_}.place());
        for (;;) {
            auto ended = serve_one_run();
            if (std::exchange(taken_for_lost_, false) && signal_received() == 0) {
                log_warn("{}; joins again", ended.error().message);
                continue;
            }
            if (signal_received() != 0) return static_cast<ExitCode>(128 + signal_received());
            const bool orphaned =
                !ended && ended.error().code == ExitCode::kUnreachable && was_welcomed_;
            if (!options_.stay && !(orphaned && options_.wait_when_orphaned)) return ended;
            if (orphaned && !options_.wait_when_orphaned) return ended;
            if (!ended && !was_welcomed_) return ended;
            if (!ended) log_error("{}", ended.error().message);
            log_info("{} stays for the next run", options_.device);
        }
    }

  private:
    Result<ExitCode> serve_one_run();  // joins, works until the run ends
    Result<ExitCode> pump();
    [[nodiscard]] std::string loading_problem() const;
    [[nodiscard]] Result<void> check_loading();
    [[nodiscard]] std::vector<std::string> unreached() const;
    // Whether there is a channel with the instance of a peer that the portal named.
    [[nodiscard]] bool stands(const std::string& peer) const;
    Result<std::optional<ExitCode>> handle(ControlMessage& message);
    Result<void> configure(const FrameHeader& header, const Configure& configure);
    Result<void> begin(const FrameHeader& header, const Begin& begin);
    // For what is to be sent; waiting is not computing. False when the work has become worthless.
    Result<bool> wait_for_room();
    // What makes the work at hand worthless.
    static bool ends_work(const FrameHeader& header) {
        const auto type = static_cast<MessageType>(header.type);
        return type == MessageType::kConfigure || type == MessageType::kEnd ||
               type == MessageType::kRefuse;
    }
    Result<void> make_executors(const Configure& work, std::vector<SliceRole>& slices);
    Result<void> take_state(Delivery delivery);
    Result<void> probe_link(const ProbeLink& order);
    void send_probe(const std::string& peer, const ProbeSend& probe);
    void take_probe(const Delivery& delivery);
    void take_snapshot(std::uint64_t step);
    void send_stored(std::uint64_t step, int layer);
    void drop_tensor(const TensorAddress& address);
    [[nodiscard]] bool entitled(const Delivery& delivery) const;
    Result<void> deliver(Delivery delivery);
    Result<void> obey(StageCommands commands);
    Result<void> run_action(const stage_command::Run& run);
    Result<void> train_action(const Action& action, std::vector<HostTensor> tensors);
    Result<void> evaluate_action(const Action& action, std::vector<HostTensor> tensors);
    void send_outputs(const SliceRole& slice, int slice_index, std::uint32_t micro_batch,
                      TensorKind kind, std::vector<EncodedTensor> outputs);
    void send_gradients(const SliceRole& slice, int slice_index, std::uint32_t micro_batch,
                        std::vector<EncodedTensor> gradients);
    void send_tensor(const std::string& to, TensorAddress address, EncodedTensor tensor);
    void report_step();
    void send_state(bool optimizer_state);
    // A signal asks this device to leave: its layers are handed over first.
    Result<void> leave_in_order();
    // An emulated device does not feel that this machine was late to wake its thread.
    [[nodiscard]] WorkClock action_clock() const {
        WorkClock clock;
        if (slowdown() > 1)
            clock.started = std::clamp(runnable_since_, clock.started - kLateMax, clock.started);
        return clock;
    }
    [[nodiscard]] double slowdown() const { return options_.slowdown * slow_switch_factor(); }
    [[nodiscard]] FrameHeader header() const {
        FrameHeader header;
        header.generation = machine_.generation();
        header.step = machine_.step();
        header.micro_batch = micro_batch_;
        return header;
    }
    // A failure of this stage: told to the portal, which tells everyone.
    Result<ExitCode> give_up(const Error& error);

    const WorkerOptions& options_;
    Inbox<WorkerEvent> inbox_;
    ComputeActivity activity_;
    std::atomic<int> superseded_{0};  // messages that end the work at hand and are not handled yet
    NetLoop loop_;
    PortalLink link_;
    DataPlane data_;
    StateExchange state_;
    NumericClass numeric_class_;
    std::uint16_t data_port_ = 0;
    std::uint64_t instance_ = 0;  // of this joining

    StageMachine machine_;
    Plan plan_;
    PlanIndex index_;
    Configure work_;  // in force
    Executors executors_;
    WaitingTensors tensors_;  // early ones: of a generation whose Configure is still under way
    std::map<std::string, std::uint64_t> attached_;  // channels that stand, and with which instance
    bool taken_for_lost_ = false;
    std::optional<WatchedDeadline> leaving_;
    bool configured_ = false;
    bool was_welcomed_ = false;
    struct Loading {               // from Configure to Ready
        Instant since;             // Configure came
        Instant moved;             // something has come since
        std::uint64_t progress{};  // as counted then
        Instant look_due;
    };
    std::optional<Loading> loading_;
    bool told_unreached_ = false;     // in this configuration
    std::uint32_t micro_batch_ = 0;   // of the action at hand
    Instant runnable_since_{};        // the action at hand: all it needs was there
    Instant free_since_{};            // the last work was over, as emulated
    Duration waited_{};               // within the action at hand, for others
    std::optional<LinkProbe> probe_;  // of the link to probed_peer_, while it runs
    std::string probed_peer_;
    bool trace_ = false;
    Done done_;  // of the step under way
    double update_ms_ = 0;
    Instant step_started_{};
    std::uint64_t sent_before_ = 0;
};

Result<ExitCode> Worker::serve_one_run() {
    machine_ = StageMachine();
    executors_.clear();
    tensors_.clear();
    attached_.clear();
    configured_ = false;
    work_ = {};
    state_.keeper().clear();
    // Whoever spoke in the life before has been hung up on; what was said then is nobody's now.
    data_.set_run(0, 0);
    inbox_.clear();
    superseded_ = 0;
    loading_.reset();
    leaving_.reset();
    std::random_device device;  // an identity only
    instance_ = (std::uint64_t{device()} << 32) | device() | 1U;
    const Hello hello{.device = options_.device,
                      .program_version = kVersion,
                      .numeric_class = numeric_class_.hash,
                      .numeric_summary = numeric_class_.summary,
                      .cpu = cpu_name(),
                      .cores = core_count(),
                      .threads = static_cast<std::uint32_t>(options_.threads),
                      .memory_mib = available_memory_mib(),
                      .data_address = options_.data_address,
                      .data_port = data_port_,
                      .process_id = static_cast<std::uint64_t>(::getpid()),
                      .instance = instance_};
    ECOPIPE_RETURN_IF_ERROR(link_.dial(options_.portal, options_.portal_name, hello));
    log_info("{} joins {}", options_.device, options_.portal.text());
    auto ended = pump();
    link_.hang_up();
    data_.keep_only({});
    return ended;
}

Result<ExitCode> Worker::pump() {
    was_welcomed_ = false;
    WatchedDeadline join_deadline(monotonic_now(), from_ms(options_.join_timeout_s * 1000), kTick);
    for (;;) {
        auto event = inbox_.pop_until(monotonic_now() + kTick);
        if (signal_received() != 0)
            if (auto left = leave_in_order(); !left) return give_up(left.error());
        if (!event) {
            if (auto loads = check_loading(); !loads) return give_up(loads.error());
            if (!was_welcomed_ && join_deadline.over(monotonic_now()))
                return fail(ExitCode::kUnreachable,
                            fmt::format("portal {} did not answer within {} s",
                                        options_.portal.text(), options_.join_timeout_s));
            continue;
        }
        Result<void> handled;
        if (auto* lost = std::get_if<PortalLost>(&*event))
            return tl::unexpected<Error>(lost->error);
        if (auto* attached = std::get_if<PeerAttached>(&*event)) {
            attached_[attached->peer] = attached->instance;
            if (probe_ && attached->peer == probed_peer_)
                send_probe(probed_peer_, probe_->begin(monotonic_now()));
            if (stands(attached->peer))
                handled = obey(machine_.on(stage_event::Attached{attached->peer}));
        } else if (auto* delivery = std::get_if<Delivery>(&*event)) {
            handled = deliver(std::move(*delivery));
        } else {
            auto& message = std::get<ControlMessage>(*event);
            was_welcomed_ = was_welcomed_ ||
                            static_cast<MessageType>(message.header.type) == MessageType::kWelcome;
            auto outcome = handle(message);
            if (ends_work(message.header)) --superseded_;
            if (outcome && *outcome) return **outcome;
            if (!outcome) {
                // The portal itself spoke of the end: nobody needs to be told.
                const auto type = static_cast<MessageType>(message.header.type);
                if (type == MessageType::kEnd || type == MessageType::kRefuse)
                    return tl::unexpected<Error>(outcome.error());
                handled = tl::unexpected<Error>(outcome.error());
            }
        }
        if (!handled) return give_up(handled.error());
    }
}

Result<void> Worker::leave_in_order() {
    const auto name = signal_received() == SIGINT ? "SIGINT" : "SIGTERM";
    const Error left{ExitCode::kUnreachable, fmt::format("left on {}", name)};
    if (!was_welcomed_) return tl::unexpected<Error>(left);
    if (!leaving_) {
        leaving_.emplace(monotonic_now(), kLeaveWait, kTick);
        log_info("{} hands its layers over and leaves", options_.device);
        link_.send(header(), Leave{left.message});
    }
    if (leaving_->over(monotonic_now())) return tl::unexpected<Error>(left);
    return {};
}

Result<ExitCode> Worker::give_up(const Error& error) {
    if (!was_welcomed_) return tl::unexpected<Error>(error);  // nobody is there to be told
    link_.send(header(),
               Failed{static_cast<std::uint8_t>(error.code), error.message.substr(0, 4096)});
    const Instant deadline = monotonic_now() + kEndWait;
    while (monotonic_now() < deadline) {
        const auto event = inbox_.pop_until(deadline);
        if (!event || std::holds_alternative<PortalLost>(*event)) break;
        const auto* message = std::get_if<ControlMessage>(&*event);
        if (message != nullptr &&
            static_cast<MessageType>(message->header.type) == MessageType::kEnd)
            break;
    }
    return tl::unexpected<Error>(error);
}

Result<std::optional<ExitCode>> Worker::handle(ControlMessage& message) {
    const std::span<const std::byte> body(message.body);
    const FrameHeader& head = message.header;
    switch (static_cast<MessageType>(head.type)) {
        case MessageType::kWelcome:
            data_.set_run(head.run, instance_);
            log_info("{} was welcomed by {}", options_.device, options_.portal.text());
            break;
        case MessageType::kRefuse: {
            ECOPIPE_ASSIGN_OR_RETURN(const auto refuse, decode<Refuse>(body));
            taken_for_lost_ =
                was_welcomed_ && static_cast<ExitCode>(refuse.code) == ExitCode::kUnreachable;
            return fail(static_cast<ExitCode>(refuse.code),
                        fmt::format("refused by portal {}: {}", options_.portal.text(),
                                    printable(refuse.reason)));
        }
        case MessageType::kConfigure: {
            ECOPIPE_ASSIGN_OR_RETURN(const auto work, decode<Configure>(body));
            ECOPIPE_RETURN_IF_ERROR(configure(head, work));
            break;
        }
        case MessageType::kBegin: {
            ECOPIPE_ASSIGN_OR_RETURN(const auto step, decode<Begin>(body));
            ECOPIPE_RETURN_IF_ERROR(begin(head, step));
            break;
        }
        case MessageType::kCommit: {
            ECOPIPE_ASSIGN_OR_RETURN(const auto commit, decode<Commit>(body));
            ECOPIPE_RETURN_IF_ERROR(
                obey(machine_.on(stage_event::CommitReceived{head.generation, head.step, commit})));
            break;
        }
        case MessageType::kProbeLink: {
            ECOPIPE_ASSIGN_OR_RETURN(const auto probe, decode<ProbeLink>(body));
            ECOPIPE_RETURN_IF_ERROR(probe_link(probe));
            break;
        }
        case MessageType::kFetch: {
            ECOPIPE_ASSIGN_OR_RETURN(const auto fetch, decode<Fetch>(body));
            ECOPIPE_RETURN_IF_ERROR(obey(machine_.on(stage_event::FetchReceived{fetch})));
            break;
        }
        case MessageType::kEnd: {
            ECOPIPE_ASSIGN_OR_RETURN(const auto end, decode<End>(body));
            if (end.code != 0)
                return fail(static_cast<ExitCode>(end.code),
                            fmt::format("the run ended: {}", end.reason));
            log_info("the run is over");
            return std::optional(ExitCode::kDone);
        }
        default:
            log_warn("portal {}: unexpected message {}", options_.portal.text(), head.type);
    }
    return std::optional<ExitCode>();
}

bool Worker::stands(const std::string& peer) const {
    const auto attached = attached_.find(peer);
    if (attached == attached_.end()) return false;
    if (peer == kPortalPeer) return true;
    return std::any_of(work_.peers.begin(), work_.peers.end(), [&](const PeerAddress& known) {
        return known.device == peer && known.instance == attached->second;
    });
}

// An executor whose layers stay is used again: what it holds is loaded anew in any case.
Result<void> Worker::make_executors(const Configure& work, std::vector<SliceRole>& slices) {
    ModelSpec spec;
    spec.zoo = work.model;
    spec.sha256 = work.model_sha256;
    spec.num_classes = static_cast<int>(work.num_classes);
    spec.input_shape = work.input_shape;
    spec.freeze = work.freeze;
    Executors before = std::move(executors_);
    executors_.clear();
    for (const StageId id : index_.stages_of(work.device)) {
        const StagePlan& stage = plan_.stages[id.index()];
        ExecutorOptions options;
        options.range = {stage.first_layer, stage.last_layer};
        options.recompute = stage.recompute;
        options.optimizer = work.optimizer;
        options.loss = work.loss;
        options.seed = work.seed;
        options.gradient_codec = stage.codec_backward;
        const auto same = std::find_if(before.begin(), before.end(), [&](const auto& executor) {
            return executor && executor->fits(options);
        });
        if (same != before.end()) {
            (*same)->reset_optimizer();
            executors_.push_back(std::move(*same));
        } else {
            if (spec.zoo.empty() && spec.torchscript_path.empty()) {
                ECOPIPE_ASSIGN_OR_RETURN(spec.torchscript_path,
                                         find_torchscript(options_.models_directory, spec.sha256));
            }
            ECOPIPE_ASSIGN_OR_RETURN(auto executor, Executor::create(spec, options));
            executors_.push_back(std::move(executor));
        }
        slices = slice_roles(index_, work.device, executors_.back()->model().first_trainable_layer);
    }
    return {};
}

Result<void> Worker::configure(const FrameHeader& head, const Configure& work) {
    if (!work.cause.empty()) log_warn("{}", printable(work.cause));
    // What the executors hold is one of the kept states too, if it is the one that all go to.
    for (auto& executor : executors_) executor->discard();
    if (work.course != work_.course)
        state_.keeper().clear();
    else if (machine_.state() == head.step)
        static_cast<void>(state_.keep(head.step, executors_));
    state_.keeper().rewind_to(head.step);
    ECOPIPE_ASSIGN_OR_RETURN(plan_, parse_plan(work.plan_json, "plan"));
    index_ = PlanIndex(plan_);
    std::vector<SliceRole> slices;
    ECOPIPE_RETURN_IF_ERROR(make_executors(work, slices));
    work_ = work;
    // Channels of an earlier plan stay; only those that do not stand yet are waited for.
    std::set<std::string> missing;
    std::vector<std::string> keep{kPortalPeer};
    for (const PeerAddress& peer : work.peers) keep.push_back(peer.device);
    data_.keep_only(keep, head.generation);
    std::erase_if(attached_, [&](const auto& entry) {
        return std::find(keep.begin(), keep.end(), entry.first) == keep.end();
    });
    // One that was dialled may have been cut since.
    for (const PeerAddress& peer : work.peers)
        if (peer.dial && !data_.connected(peer.device)) attached_.erase(peer.device);
    for (const std::string& peer : keep)
        if (!stands(peer)) missing.insert(peer);
    configured_ = true;
    const Instant now = monotonic_now();
    loading_ = {now, now, activity_.progress, now + kTick};
    told_unreached_ = false;
    ECOPIPE_RETURN_IF_ERROR(obey(machine_.on(
        stage_event::Configured{head.generation, work.device, slices, missing, head.step,
                                work.restore, work.supply, work.keep_snapshots})));
    // What came whole for an earlier configuration that broke off need not come again.
    for (const LayerTransfer& transfer : work.restore)
        for (auto layer = static_cast<int>(transfer.first_layer);
             layer <= static_cast<int>(transfer.last_layer); ++layer)
            if (state_.keeper().find(head.step, layer) != nullptr)
                ECOPIPE_RETURN_IF_ERROR(obey(machine_.on(
                    stage_event::LayerArrived{head.generation, head.step, layer, false})));
    for (const PeerAddress& peer : work.peers) {
        if (!peer.dial) continue;
        ECOPIPE_ASSIGN_OR_RETURN(const Endpoint endpoint,
                                 parse_endpoint(peer.endpoint, "peer " + peer.device));
        ECOPIPE_RETURN_IF_ERROR(data_.dial(peer.device, endpoint, peer.instance));
    }
    for (Delivery& delivery : tensors_.take_early())
        ECOPIPE_RETURN_IF_ERROR(deliver(std::move(delivery)));
    return {};
}

std::vector<std::string> Worker::unreached() const {
    std::vector<std::string> devices;
    for (const PeerAddress& peer : work_.peers)
        if (!stands(peer.device)) devices.push_back(peer.device);
    return devices;
}

// Which of two devices that do not reach one another goes on, the portal alone can say: until it
// does this one waits.
Result<void> Worker::check_loading() {
    if (!loading_) return {};
    const Instant now = monotonic_now();
    const Duration away = time_not_run(now, loading_->look_due);
    loading_->since += away;
    loading_->moved += away;
    loading_->look_due = now + kTick;
    const std::uint64_t progress = activity_.progress;
    if (std::exchange(loading_->progress, progress) != progress) loading_->moved = now;
    const auto missing =
        now - loading_->since > kReachWait ? unreached() : std::vector<std::string>();
    if (!missing.empty()) {
        if (std::exchange(told_unreached_, true)) return {};
        log_warn("{}", loading_problem());
        link_.send(header(), Unreached{missing});
    } else if (now - loading_->moved > kLoadTimeout) {
        return fail(ExitCode::kUnreachable,
                    fmt::format("not ready, and nothing has come for {} s: {}",
                                kLoadTimeout.count(), loading_problem()));
    }
    return {};
}

// A device that cannot be reached is named with its address and port.
std::string Worker::loading_problem() const {
    for (const PeerAddress& peer : work_.peers)
        if (!stands(peer.device))
            return peer.dial ? fmt::format("device {} cannot be reached at {}", peer.device,
                                           peer.endpoint)
                             : fmt::format("device {} did not dial this one's data port {}",
                                           peer.device, data_port_);
    if (!attached_.contains(kPortalPeer))
        return fmt::format("the portal did not dial this device's data port {}", data_port_);
    return machine_.waiting_for();
}

Result<void> Worker::begin(const FrameHeader& head, const Begin& step) {
    const int micro_batches = static_cast<int>(step.micro_batch_samples.size());
    ActionList actions;
    if (step.mode == StepMode::kTrain && !executors_.empty()) {
        ECOPIPE_ASSIGN_OR_RETURN(const auto lists, plan_actions(plan_, micro_batches));
        actions = lists.at(index_.place(options_.device).value());
    } else {
        for (int m = 0; m < micro_batches; ++m)
            for (int slice = 0; slice < static_cast<int>(executors_.size()); ++slice)
                actions.push_back({ActionKind::kForward, m, slice});
    }
    return obey(
        machine_.on(stage_event::Begun{head.generation, head.step, step, std::move(actions)}));
}

Result<void> Worker::take_state(Delivery delivery) {
    const TensorAddress address = delivery.address;
    if (address.generation < machine_.generation()) return {};
    if (!state_.arrived(std::move(delivery))) return {};
    return obey(machine_.on(stage_event::LayerArrived{address.generation, address.step,
                                                      static_cast<int>(address.producer),
                                                      address.kind == TensorKind::kReplica}));
}

void Worker::send_stored(std::uint64_t step, int layer) {
    FrameHeader head = header();
    head.step = step;
    const auto number = static_cast<std::uint32_t>(layer);
    link_.send(head, Stored{number, number});
}

void Worker::take_snapshot(std::uint64_t step) {
    for (const int layer : state_.keep(step, executors_)) {
        send_stored(step, layer);
        if (!work_.buddy.empty())
            state_.send(work_.buddy, TensorKind::kReplica, machine_.generation(), step, layer,
                        layer);
    }
}

// A streamed tensor that nobody will use gives its room back all the same.
void Worker::drop_tensor(const TensorAddress& address) {
    const auto found = tensors_.take(address);
    if (found && address.kind != TensorKind::kActivation && address.kind != TensorKind::kGradient &&
        found->peer != options_.device)
        data_.consumed(found->peer, found->tensor.bytes());
}

Result<void> Worker::probe_link(const ProbeLink& order) {
    ECOPIPE_ASSIGN_OR_RETURN(const Endpoint endpoint,
                             parse_endpoint(order.endpoint, "peer " + order.peer));
    probed_peer_ = order.peer;
    probe_.emplace();
    // What the channel still has to do until it stands is no part of the link.
    ECOPIPE_RETURN_IF_ERROR(data_.dial(order.peer, endpoint));
    if (attached_.contains(order.peer)) send_probe(order.peer, probe_->begin(monotonic_now()));
    return {};
}

void Worker::send_probe(const std::string& peer, const ProbeSend& probe) {
    TensorAddress address;
    address.kind = TensorKind::kProbe;
    address.micro_batch = probe.number;
    address.gradient_returns = probe.bytes > 0;  // an answer is empty
    data_.send(peer, address,
               HostTensor::allocate(DType::kU8, {static_cast<std::int64_t>(probe.bytes)}));
}

void Worker::take_probe(const Delivery& delivery) {
    if (delivery.address.gradient_returns)
        return send_probe(delivery.peer, {delivery.address.micro_batch, 0});
    if (!probe_ || delivery.peer != probed_peer_) return;
    const auto next = probe_->answered(delivery.address.micro_batch, monotonic_now());
    if (next) return send_probe(probed_peer_, *next);
    if (const auto& result = probe_->result()) {
        link_.send(header(), LinkProbed{probed_peer_, result->mbps, result->latency_ms});
        probe_.reset();
    }
}

// Whether the plan has this tensor come from that peer: a device with a key may still be hostile,
// and nobody but a layer's owner may say what the layer made.
bool Worker::entitled(const Delivery& delivery) const {
    const auto owns = [&](std::uint32_t layer) {
        return index_.holds(delivery.peer, static_cast<int>(layer));
    };
    switch (delivery.address.kind) {
        case TensorKind::kActivation:
        case TensorKind::kEvalActivation:
            return owns(delivery.address.producer);
        case TensorKind::kGradient:
            return owns(delivery.address.producer + 1);
        case TensorKind::kState:
        case TensorKind::kReplica:
            return delivery.peer == kPortalPeer ||
                   std::any_of(
                       work_.peers.begin(), work_.peers.end(),
                       [&](const PeerAddress& peer) { return peer.device == delivery.peer; });
        default:
            return delivery.peer == kPortalPeer;
    }
}

Result<void> Worker::deliver(Delivery delivery) {
    if (delivery.address.kind == TensorKind::kProbe) {
        take_probe(delivery);
        return {};
    }
    const TensorAddress address = delivery.address;
    const std::size_t bytes = delivery.tensor.bytes();
    const bool early = !configured_ || address.generation > machine_.generation();
    const bool wrong = !early && address.generation == machine_.generation() && !entitled(delivery);
    const bool state = !early && is_state(address.kind);
    const std::string peer = delivery.peer;
    if (wrong || !(state || (early ? tensors_.keep_early(delivery) : tensors_.keep(delivery)))) {
        data_.consumed(peer, bytes);
        log_debug("a tensor of {} that is not expected of it is dropped", peer);
        return {};
    }
    if (early) return {};
    if (state) return take_state(std::move(delivery));
    return obey(machine_.on(stage_event::TensorArrived{address}));
}

Result<void> Worker::obey(StageCommands commands) {
    for (StageCommand& command : commands) {
        if (auto* load = std::get_if<stage_command::LoadLayer>(&command)) {
            ECOPIPE_RETURN_IF_ERROR(state_.load(load->step, load->layer, executors_));
        } else if (auto* supply = std::get_if<stage_command::SupplyLayers>(&command)) {
            state_.send(supply->transfer.peer, TensorKind::kState, machine_.generation(),
                        supply->step, static_cast<int>(supply->transfer.first_layer),
                        static_cast<int>(supply->transfer.last_layer));
        } else if (auto* old = std::get_if<stage_command::DropSnapshots>(&command)) {
            state_.keeper().drop_before(old->before);
        } else if (auto* snapshot = std::get_if<stage_command::TakeSnapshot>(&command)) {
            take_snapshot(snapshot->step);
        } else if (auto* stored = std::get_if<stage_command::SendStored>(&command)) {
            send_stored(stored->step, stored->layer);
        } else if (std::holds_alternative<stage_command::SendReady>(command)) {
            loading_.reset();
            link_.send(header(), Ready{live_tensor_bytes()});
        } else if (auto* start = std::get_if<stage_command::StartStep>(&command)) {
            done_ = {};
            trace_ = start->begin.trace;
            step_started_ = monotonic_now();
            sent_before_ = data_.sent_bytes();
            reset_peak_tensor_bytes();
            if (start->begin.mode == StepMode::kTrain)
                for (auto& executor : executors_)
                    executor->begin_step(start->step, start->begin.loss_divisor);
        } else if (auto* run = std::get_if<stage_command::Run>(&command)) {
            ECOPIPE_RETURN_IF_ERROR(run_action(*run));
        } else if (auto* drop = std::get_if<stage_command::DropTensor>(&command)) {
            drop_tensor(drop->address);
        } else if (std::holds_alternative<stage_command::ReportStep>(command)) {
            if (superseded_ == 0) report_step();
            ECOPIPE_RETURN_IF_ERROR(obey(machine_.on(stage_event::StepReported{})));
        } else if (auto* update = std::get_if<stage_command::ApplyUpdate>(&command)) {
            const WorkClock work;
            for (auto& executor : executors_)
                executor->commit(update->commit.learning_rate, update->commit.gradient_scale);
            free_since_ = work.slow_down(slowdown());
            update_ms_ = to_ms(monotonic_now() - work.started);
            ECOPIPE_RETURN_IF_ERROR(obey(machine_.on(stage_event::UpdateFinished{})));
        } else if (std::holds_alternative<stage_command::SendCommitted>(command)) {
            die_if_told(machine_.step());
            link_.send(header(), Committed{update_ms_});
        } else if (auto* fetch = std::get_if<stage_command::SendState>(&command)) {
            send_state(fetch->optimizer_state);
        } else if (auto* error = std::get_if<stage_command::ProtocolError>(&command)) {
            return fail(ExitCode::kRunFailed,
                        "unexpected message from the portal: " + error->reason);
        }
    }
    return {};
}

Result<void> Worker::run_action(const stage_command::Run& run) {
    micro_batch_ = static_cast<std::uint32_t>(run.action.micro_batch);
    runnable_since_ = free_since_;
    std::vector<HostTensor> tensors;
    for (const TensorAddress& address : run.tensors) {
        std::optional<Delivery> found = tensors_.take(address);
        ECOPIPE_CHECK(found.has_value());
        Delivery& delivery = *found;
        runnable_since_ = std::max(runnable_since_, delivery.arrived);
        if (address.kind != TensorKind::kActivation && address.kind != TensorKind::kGradient &&
            delivery.peer != options_.device)
            data_.consumed(delivery.peer, delivery.tensor.bytes());
        // Gradients stand at the place of their output; an output without one leaves a gap.
        if (address.kind == TensorKind::kGradient) {
            if (tensors.size() <= address.output) tensors.resize(address.output + 1U);
            tensors[address.output] = std::move(delivery.tensor);
        } else {
            tensors.push_back(std::move(delivery.tensor));
        }
    }
    // Nobody wants it any more: what ends this work is behind it in the inbox.
    if (superseded_ > 0) return obey(machine_.on(stage_event::ActionFinished{}));
    const Instant started = monotonic_now();
    waited_ = {};
    activity_.begin(machine_.step(), micro_batch_, started);
    if (machine_.mode() == StepMode::kTrain) {
        ECOPIPE_RETURN_IF_ERROR(train_action(run.action, std::move(tensors)));
    } else {
        ECOPIPE_RETURN_IF_ERROR(evaluate_action(run.action, std::move(tensors)));
    }
    const Instant ended = monotonic_now();
    done_.busy_ms += to_ms(ended - started - waited_);
    if (trace_)
        done_.actions.push_back({static_cast<char>(run.action.kind),
                                 static_cast<std::uint16_t>(run.action.slice), micro_batch_,
                                 ns(started), ns(ended)});
    activity_.end(ended);
    return obey(machine_.on(stage_event::ActionFinished{}));
}

Result<void> Worker::train_action(const Action& action, std::vector<HostTensor> tensors) {
    const auto index = static_cast<std::size_t>(action.slice);
    const SliceRole& slice = machine_.slices()[index];
    Executor& executor = *executors_[index];
    const WorkClock work = action_clock();
    if (action.kind == ActionKind::kForward) {
        HostTensor labels;
        if (slice.last) {
            labels = std::move(tensors.back());
            tensors.pop_back();
        }
        ECOPIPE_ASSIGN_OR_RETURN(
            auto outputs, executor.forward(micro_batch_, tensors, slice.last ? &labels : nullptr));
        const StagePlan& stage = plan_.stages[slice.stage.index()];
        std::vector<EncodedTensor> encoded;
        for (const HostTensor& output : outputs)
            encoded.push_back(encode_tensor(output, stage.codec_forward));
        free_since_ = work.slow_down(slowdown());
        if (!slice.last)
            send_outputs(slice, action.slice, micro_batch_, TensorKind::kActivation,
                         std::move(encoded));
        return {};
    }
    if (action.kind == ActionKind::kWeightGradient) {
        ECOPIPE_RETURN_IF_ERROR(executor.weight_gradient(micro_batch_));
        free_since_ = work.slow_down(slowdown());
        return {};
    }
    ECOPIPE_ASSIGN_OR_RETURN(auto gradients, action.kind == ActionKind::kBackward
                                                 ? executor.backward(micro_batch_, tensors)
                                                 : executor.input_gradient(micro_batch_, tensors));
    auto encoded = executor.encode_gradients(std::move(gradients));
    free_since_ = work.slow_down(slowdown());
    if (slice.sends_gradient) send_gradients(slice, action.slice, micro_batch_, std::move(encoded));
    return {};
}

Result<void> Worker::evaluate_action(const Action& action, std::vector<HostTensor> tensors) {
    const auto index = static_cast<std::size_t>(action.slice);
    const SliceRole& slice = machine_.slices()[index];
    const WorkClock work = action_clock();
    HostTensor labels;
    if (slice.last) {
        labels = std::move(tensors.back());
        tensors.pop_back();
    }
    LossTotals totals;
    ECOPIPE_ASSIGN_OR_RETURN(
        auto outputs, executors_[index]->evaluate(tensors, slice.last ? &labels : nullptr, totals));
    done_.loss.add(totals);
    free_since_ = work.slow_down(slowdown());
    if (slice.last) return {};
    // Evaluation streams: a faster stage waits here instead of queueing the whole test split.
    ECOPIPE_ASSIGN_OR_RETURN(const bool room, wait_for_room());
    if (!room) return {};
    std::vector<EncodedTensor> exact;  // an evaluation is never compressed
    for (HostTensor& output : outputs) exact.push_back({std::move(output)});
    send_outputs(slice, action.slice, micro_batch_, TensorKind::kEvalActivation, std::move(exact));
    return {};
}

Result<bool> Worker::wait_for_room() {
    const Instant begun = monotonic_now();
    bool room = data_.wait_for_room(begun);
    if (room) return true;
    activity_.wait(begun);
    while (!room && superseded_ == 0) {  // whoever should make room may be gone
        room = data_.wait_for_room(monotonic_now() + kTick);
        if (signal_received() != 0) ECOPIPE_RETURN_IF_ERROR(leave_in_order());
    }
    const Instant now = monotonic_now();
    waited_ = now - begun;
    activity_.go_on(now);
    return room;
}

void Worker::send_outputs(const SliceRole& slice, int slice_index, std::uint32_t micro_batch,
                          TensorKind kind, std::vector<EncodedTensor> outputs) {
    TensorAddress address;
    address.generation = machine_.generation();
    address.step = machine_.step();
    address.kind = kind;
    address.micro_batch = micro_batch;
    address.slice = static_cast<std::uint16_t>(slice_index);
    address.producer = static_cast<std::uint32_t>(slice.last_layer);
    address.outputs = static_cast<std::uint16_t>(outputs.size());
    address.gradient_returns = slice.receives_gradient;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
        address.output = static_cast<std::uint16_t>(i);
        send_tensor(slice.downstream, address, std::move(outputs[i]));
    }
}

void Worker::send_gradients(const SliceRole& slice, int slice_index, std::uint32_t micro_batch,
                            std::vector<EncodedTensor> gradients) {
    TensorAddress address;
    address.generation = machine_.generation();
    address.step = machine_.step();
    address.kind = TensorKind::kGradient;
    address.micro_batch = micro_batch;
    address.slice = static_cast<std::uint16_t>(slice_index);
    address.producer = static_cast<std::uint32_t>(slice.first_layer - 1);
    address.outputs = static_cast<std::uint16_t>(
        std::count_if(gradients.begin(), gradients.end(),
                      [](const EncodedTensor& g) { return g.tensor.defined(); }));
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        if (!gradients[i].tensor.defined()) continue;
        address.output = static_cast<std::uint16_t>(i);
        send_tensor(slice.upstream, address, std::move(gradients[i]));
    }
}

void Worker::send_tensor(const std::string& to, TensorAddress address, EncodedTensor tensor) {
    if (to == options_.device) {  // the next slice is here: no wire between
        inbox_.push(Delivery{options_.device, std::move(address), decode_tensor(tensor)});
    } else {
        data_.send(to, std::move(address), std::move(tensor));
    }
}

void Worker::report_step() {
    if (machine_.mode() == StepMode::kTrain) {
        for (auto& executor : executors_) {
            const StepTotals totals = executor->finish_step();
            done_.loss.add(totals.loss);
            done_.squared_gradient_norms.insert(done_.squared_gradient_norms.end(),
                                                totals.squared_gradient_norms.begin(),
                                                totals.squared_gradient_norms.end());
            if (done_.nonfinite_layer < 0) done_.nonfinite_layer = totals.nonfinite_layer;
        }
    }
    done_.wait_ms = std::max(0.0, to_ms(monotonic_now() - step_started_) - done_.busy_ms);
    done_.peak_bytes = peak_tensor_bytes();
    done_.sent_bytes = data_.sent_bytes() - sent_before_;
    const FrameHeader head = header();
    std::vector<ActionTime>& actions = done_.actions;
    std::size_t told = 0;
    for (; actions.size() - told > kTraceActionsMax; told += kTraceActionsMax) {
        const auto from = actions.begin() + static_cast<std::ptrdiff_t>(told);
        link_.send(head, Trace{{from, from + kTraceActionsMax}});
    }
    actions.erase(actions.begin(), actions.begin() + static_cast<std::ptrdiff_t>(told));
    link_.send(head, done_);
    done_ = {};
}

void Worker::send_state(bool optimizer_state) {
    std::uint32_t sent = 0;
    for (std::size_t slice = 0; slice < executors_.size(); ++slice) {
        for (NamedTensor& entry : executors_[slice]->state(optimizer_state)) {
            TensorAddress address;
            address.generation = machine_.generation();
            address.step = machine_.step();
            address.kind = TensorKind::kState;
            address.slice = static_cast<std::uint16_t>(slice);
            address.producer = static_cast<std::uint32_t>(executors_[slice]->range().first);
            address.name = entry.name;
            data_.send(kPortalPeer, std::move(address), std::move(entry.tensor));
            ++sent;
        }
    }
    link_.send(header(), Fetched{sent});
}

}  // namespace

Result<ExitCode> run_worker(const WorkerOptions& options) { return Worker(options).run(); }

}  // namespace ecopipe
