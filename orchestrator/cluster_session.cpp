#include "orchestrator/cluster_session.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <random>

#include "core/log.h"
#include "core/step_number.h"
#include "domain/plan_index.h"
#include "orchestrator/evaluation_reader.h"
#include "planner/schedule/plan_file.h"
#include "stage_runtime/model/state_names.h"
#include "stage_runtime/stage_machine.h"
#include "transport/key_ring.h"

namespace ecopipe {
namespace {

constexpr auto kProbeTimeout = std::chrono::seconds(60);  // of one link
constexpr auto kSessionTick =
    std::chrono::milliseconds(50);                        // how often the caller's check is asked
constexpr auto kReachTimeout = std::chrono::seconds(15);  // to open the data channels
constexpr auto kUnreachedSettle =
    std::chrono::milliseconds(1500);                  // for all to tell what they miss
constexpr auto kLongWait = std::chrono::minutes(60);  // liveness ends a dead wait far earlier
constexpr int kBreaksMax = 20;                        // without a step that is new in between
constexpr std::uint64_t kMoveCooldownSteps = 20;      // so that a move shows its worth first
constexpr double kMoveFixedMs = 150;                  // configure, load, fill the pipeline
constexpr std::size_t kTracedActionsMax = 1U << 20;   // of a device, in a step
constexpr auto kEndLinger = std::chrono::milliseconds(300);  // for the last word to leave

std::uint64_t fresh_run_id() {
    std::random_device device;  // an id only: nothing of the training depends on it
    const std::uint64_t id = (std::uint64_t{device()} << 32) | device();
    return id == 0 ? 1 : id;
}

}  // namespace

ClusterSession::ClusterSession(NetLoop& loop, SessionOptions options)
    : options_(std::move(options)), run_(fresh_run_id()), loop_(loop) {}

ClusterSession::~ClusterSession() {
    if (!ended_) end(ExitCode::kRunFailed, "the portal ended the run");
    data_.reset();
    members_.reset();
}

Result<std::unique_ptr<ClusterSession>> ClusterSession::open(NetLoop& loop,
                                                             SessionOptions options) {
    std::unique_ptr<ClusterSession> session(new ClusterSession(loop, std::move(options)));
    MembershipOptions membership;
    membership.bind = session->options_.bind;
    membership.allowed = {session->options_.devices.begin(), session->options_.devices.end()};
    membership.limits.silence_max = from_ms(session->options_.peer_timeout_s * 1000);
    membership.ping_interval =
        std::min<Duration>(membership.limits.silence_max / 10, membership.ping_interval);
    session->members_ = std::make_unique<Membership>(session->loop_, session->inbox_, session->run_,
                                                     std::move(membership));
    ClusterSession* raw = session.get();
    session->data_ = std::make_unique<DataPlane>(
        session->loop_, kPortalPeer,
        DataPlane::Callbacks{[raw](Delivery delivery) { raw->inbox_.push(std::move(delivery)); },
                             [raw](const std::string& peer, std::uint64_t instance) {
                                 raw->inbox_.push(portal_event::Attached{peer, instance});
                             },
                             [raw] { raw->members_->progressed(); }});
    session->data_->set_run(session->run_, session->run_);
    session->data_->set_security(session->options_.security);
    session->data_->emulate(session->options_.links, EmulatedLink{});
    ECOPIPE_ASSIGN_OR_RETURN(const std::uint16_t port, session->members_->bind());
    session->bound_ = session->options_.bind;
    session->bound_.port = port;
    return session;
}

Result<void> ClusterSession::check_processes() {
    if (options_.ended_processes) {
        for (const LostProcess& lost : options_.ended_processes()) {
            // What it said before it ended tells more; its connection's end tells less.
            while (auto event = inbox_.pop_until(monotonic_now()))
                ECOPIPE_RETURN_IF_ERROR(handle(*event));
            members_->declare_lost(lost.device, lost.how);  // unless that is known by now
        }
    }
    return options_.check ? options_.check() : Result<void>();
}

Result<bool> ClusterSession::pump(const std::function<bool()>& finished, Duration patience,
                                  const std::string& doing) {
    WatchedDeadline deadline(monotonic_now(), patience, kSessionTick);
    for (;;) {
        if (machine_.broken()) return false;
        if (finished()) return true;
        const Instant now = monotonic_now();
        const bool over = deadline.over(now);
        if (unreached_since_) *unreached_since_ += deadline.not_run();
        if (unreached_since_ && now - *unreached_since_ >= kUnreachedSettle) {
            ECOPIPE_RETURN_IF_ERROR(settle_unreached());
            continue;
        }
        if (over)
            return fail(ExitCode::kUnreachable,
                        fmt::format("{}: waited in vain for {}", doing, machine_.waiting_for()));
        // Messages first: a device that failed says why before its process ends.
        if (auto event = inbox_.pop_until(deadline.look_again())) {
            ECOPIPE_RETURN_IF_ERROR(handle(*event));
        } else {
            ECOPIPE_RETURN_IF_ERROR(check_processes());
        }
    }
}

Result<bool> ClusterSession::pump_or_recover(const std::function<bool()>& finished,
                                             Duration patience, const std::string& doing) {
    ECOPIPE_ASSIGN_OR_RETURN(const bool done, pump(finished, patience, doing));
    if (done) return true;
    ECOPIPE_RETURN_IF_ERROR(recover());
    return false;
}

Result<void> ClusterSession::handle(PortalEvent& event) {
    if (auto* joined = std::get_if<portal_event::Joined>(&event)) {
        const Hello& hello = joined->hello;
        // What it says of itself is a peer's word: what is no address would be dialled by all.
        std::string host = parse_host(hello.data_address, "data_address").value_or("");
        if (host.empty()) {
            const auto known = options_.data_address.find(joined->device);
            host = known != options_.data_address.end() ? known->second : joined->address;
        }
        if (host.empty()) host = "127.0.0.1";
        joined_[joined->device] = {hello, Endpoint{host, hello.data_port}.text()};
        attached_.erase(joined->device);
        forget_unreached(joined->device);
        slowness_.erase(joined->device);
        log_info("{} joined: {}, {} of {} cores, {} MiB free", joined->device, printable(hello.cpu),
                 hello.threads, hello.cores, hello.memory_mib);
        if (hello.threads == 1 && hello.cores > 1 && !options_.shared_machine)
            log_warn(
                "{} computes on one of its {} cores: --threads {} (and threads: in the cluster "
                "file, a profile with --threads) may be faster",
                joined->device, hello.cores, hello.cores);
        introduce_all();
        came_back_ = true;
        observe([&](auto& observer) {
            observer.device_joined(joined->device, static_cast<double>(hello.memory_mib));
        });
        if (machine_.generation() > 0) reasons_to_move_.push_back(joined->device + " joined");
        return absorb(machine_.on(session_event::DeviceJoined{joined->device}));
    }
    if (auto* lost = std::get_if<portal_event::Lost>(&event)) {
        joined_.erase(lost->device);
        forget_unreached(lost->device);
        attached_.erase(lost->device);
        leaving_.erase(lost->device);
        log_warn("{} was lost: {}", lost->device, lost->how);
        observe([&](auto& observer) { observer.device_gone(lost->device, lost->how); });
        introduce_all();
        return absorb(machine_.on(session_event::DeviceLost{lost->device, lost->how}));
    }
    if (auto* attached = std::get_if<portal_event::Attached>(&event)) {
        attached_[attached->device] = attached->instance;
        supply_attached();
        return {};
    }
    if (auto* stalled = std::get_if<portal_event::Stalled>(&event))
        return absorb(machine_.on(session_event::Stalled{stalled->how}));
    if (auto* delivery = std::get_if<Delivery>(&event)) {
        const TensorAddress& at = delivery->address;
        if (at.generation != machine_.generation()) return {};
        members_->work_due(machine_.work_is_due());
        if (at.kind == TensorKind::kState) {
            fetched_state_.push_back({at.name, std::move(delivery->tensor)});
        } else if (at.kind == TensorKind::kReplica) {
            if (replicas_here_.add(at.step, static_cast<int>(at.producer), at.output, at.outputs,
                                   {at.name, std::move(delivery->tensor)}))
                return absorb(machine_.on(session_event::StoredReceived{
                    kPortalPeer, at.generation, at.step, Stored{at.producer, at.producer}}));
        }
        return {};
    }
    return handle_message(std::get<portal_event::Message>(event));
}

Result<void> ClusterSession::handle_message(portal_event::Message& message) {
    message.handled();
    const std::span<const std::byte> body(message.body);
    const FrameHeader& head = message.header;
    const auto bad = [&](const Error& error) {
        log_warn("{} sent a bad message of type {}: {}", message.device, head.type, error.message);
        return Result<void>();
    };
    Result<void> handled;
    switch (static_cast<MessageType>(head.type)) {
        case MessageType::kReady:
            handled =
                absorb(machine_.on(session_event::ReadyReceived{message.device, head.generation}));
            break;
        case MessageType::kDone: {
            auto done = decode<Done>(body);
            if (!done) return bad(done.error());
            handled = absorb(machine_.on(session_event::DoneReceived{
                message.device, head.generation, head.step, std::move(*done)}));
            break;
        }
        case MessageType::kTrace: {
            auto trace = decode<Trace>(body);
            if (!trace) return bad(trace.error());
            if (head.generation != machine_.generation() || head.step != step_) return {};
            std::vector<ActionTime>& traced = traced_[message.device];
            if (traced.size() < kTracedActionsMax)
                traced.insert(traced.end(), trace->actions.begin(), trace->actions.end());
            break;
        }
        case MessageType::kCommitted:
            handled = absorb(machine_.on(
                session_event::CommittedReceived{message.device, head.generation, head.step}));
            break;
        case MessageType::kLinkProbed: {
            auto probed = decode<LinkProbed>(body);
            if (!probed) return bad(probed.error());
            probed_ = std::move(*probed);
            break;
        }
        case MessageType::kStored: {
            const auto stored = decode<Stored>(body);
            if (!stored) return bad(stored.error());
            return absorb(machine_.on(session_event::StoredReceived{message.device, head.generation,
                                                                    head.step, *stored}));
        }
        case MessageType::kFetched: {
            const auto fetched = decode<Fetched>(body);
            if (!fetched) return bad(fetched.error());
            handled = absorb(machine_.on(session_event::FetchedReceived{
                message.device, head.generation, fetched->state_tensors}));
            break;
        }
        case MessageType::kUnreached: {
            const auto unreached = decode<Unreached>(body);
            if (!unreached) return bad(unreached.error());
            if (head.generation != machine_.generation()) return {};
            for (const std::string& other : unreached->devices)
                if (joined_.contains(other) && other != message.device)
                    unreached_.insert(
                        {std::min(message.device, other), std::max(message.device, other)});
            if (!unreached_since_ && !unreached_.empty()) unreached_since_ = monotonic_now();
            return {};
        }
        case MessageType::kLeave: {
            const auto leave = decode<Leave>(body);
            if (!leave) return bad(leave.error());
            log_info("{} asks to leave: {}", message.device, printable(leave->reason));
            if (!has_part(message.device))
                return dismiss(message.device, ExitCode::kDone, "not needed");
            leaving_.insert(message.device);
            observe([&](auto& observer) { observer.device_leaves(message.device); });
            reasons_to_move_.push_back(message.device + " leaves");
            must_move_ = true;
            return {};
        }
        case MessageType::kFailed: {
            const auto failed = decode<Failed>(body);
            if (!failed) return bad(failed.error());
            ECOPIPE_RETURN_IF_ERROR(absorb(machine_.on(session_event::DeviceFailed{
                message.device, head.step, head.micro_batch, static_cast<ExitCode>(failed->code),
                printable(failed->reason)})));
            return dismiss(message.device, static_cast<ExitCode>(failed->code), failed->reason);
        }
        default:
            odd_messages_.tell(
                fmt::format("{} sent an unexpected message of type {}", message.device, head.type));
            return {};
    }
    members_->work_due(machine_.work_is_due());
    return handled;
}

Result<void> ClusterSession::dismiss(const std::string& device, ExitCode code,
                                     const std::string& reason) {
    static_cast<void>(
        members_->send(device, header(step_), End{static_cast<std::uint8_t>(code), reason}));
    members_->forget(device);
    joined_.erase(device);
    forget_unreached(device);
    attached_.erase(device);
    leaving_.erase(device);
    observe([&](auto& observer) { observer.device_gone(device, printable(reason)); });
    introduce_all();
    return absorb(machine_.on(session_event::DeviceLost{device, "it left"}));
}

void ClusterSession::forget_unreached(const std::string& device) {
    std::erase_if(unreached_, [&](const UnreachedPair& pair) {
        return pair.from == device || pair.to == device;
    });
    if (unreached_.empty()) unreached_since_.reset();
    std::erase_if(left_out_, [&](const std::string& out) {
        return std::none_of(unreached_.begin(), unreached_.end(), [&](const UnreachedPair& pair) {
            return pair.from == out || pair.to == out;
        });
    });
}

Result<void> ClusterSession::settle_unreached() {
    unreached_since_.reset();
    if (ready_) {  // all channels have come to stand in the meantime
        std::erase_if(unreached_, [&](const UnreachedPair& pair) {
            return !left_out_.contains(pair.from) && !left_out_.contains(pair.to);
        });
        return {};
    }
    for (const std::string& device : configured_)
        if (joined_.contains(device) && !attached(device)) unreached_.insert({kPortalPeer, device});
    const auto step_over = [&](const std::set<std::string>& devices) -> std::optional<double> {
        const auto plan = planner_->plan(devices, slowness_);
        if (!plan || !plan->predicted) return std::nullopt;
        return plan->predicted->step_ms + plan->predicted->control_ms;
    };
    std::vector<std::string> pairs;
    for (const auto& [from, to] : unreached_)
        if (!left_out_.contains(from) && !left_out_.contains(to))
            pairs.push_back(fmt::format("{} cannot reach {} at {}",
                                        from == kPortalPeer ? "the portal" : from, to,
                                        joined_.at(to).data_endpoint));
    if (pairs.empty()) return {};
    std::string problem = fmt::format("{}", fmt::join(pairs, ", "));
    std::set<std::string> out;
    if (planner_)
        out = whom_to_leave_out(unreached_, usable(), {kPortalPeer, options_.portal_device},
                                step_over);
    std::vector<std::string> fresh;
    std::set_difference(out.begin(), out.end(), left_out_.begin(), left_out_.end(),
                        std::back_inserter(fresh));
    if (fresh.empty()) return fail(ExitCode::kUnreachable, problem);
    left_out_.insert(fresh.begin(), fresh.end());
    return absorb(machine_.on(session_event::Unreachable{
        fmt::format("{}; the others go on without {}", problem, fmt::join(fresh, ", ")), out}));
}

bool ClusterSession::attached(const std::string& device) const {
    const auto joined = joined_.find(device);
    const auto attached = attached_.find(device);
    return joined != joined_.end() && attached != attached_.end() &&
           attached->second == joined->second.hello.instance;
}

void ClusterSession::introduce_all() {
    const std::vector<Introduction> known = loop_.call([this] {
        std::vector<Introduction> peers;
        if (KeyRing* keys = loop_.keys())
            for (const auto& [device, joined] : joined_)
                if (const auto key = keys->find(device)) peers.push_back({device, key->text()});
        return peers;
    });
    if (known.empty()) return;
    for (const auto& [device, joined] : joined_) {
        Introduce others{known};
        std::erase_if(others.peers,
                      [&](const Introduction& peer) { return peer.device == device; });
        static_cast<void>(members_->send(device, header(0), others));
    }
}

Result<void> ClusterSession::absorb(SessionOutcomes outcomes) {
    const auto send_to = [&](const std::vector<std::string>& devices, const FrameHeader& head,
                             const auto& body) {
        for (const std::string& device : devices)
            static_cast<void>(members_->send(device, head, body));
        members_->work_due(true);
    };
    for (SessionOutcome& outcome : outcomes) {
        if (auto* work = std::get_if<session_outcome::SendConfigure>(&outcome)) {
            send_configure(*work);
        } else if (auto* supply = std::get_if<session_outcome::SupplyFromPortal>(&outcome)) {
            supply_ = std::move(*supply);
            supply_attached();
        } else if (auto* begin = std::get_if<session_outcome::SendBegin>(&outcome)) {
            begin_.recovery_point = begin->recovery_point;
            send_to(begin->devices, header(begin->step), begin_);
        } else if (auto* commit = std::get_if<session_outcome::SendCommit>(&outcome)) {
            commit_.snapshot = commit->snapshot;
            send_to(commit->devices, header(commit->step), commit_);
        } else if (auto* fetch = std::get_if<session_outcome::SendFetch>(&outcome)) {
            send_to(fetch->devices, header(step_), fetch_);
        } else if (auto* ready = std::get_if<session_outcome::AllReady>(&outcome)) {
            ready_ = ready->step;
        } else if (auto* done = std::get_if<session_outcome::AllDone>(&outcome)) {
            done_ = std::move(*done);
        } else if (auto* fetched = std::get_if<session_outcome::AllFetched>(&outcome)) {
            fetched_ = fetched->state_tensors;
        } else if (auto* point = std::get_if<session_outcome::RecoveryPoint>(&outcome)) {
            replicas_here_.drop_before(point->step);
        } else if (auto* broken = std::get_if<session_outcome::Broken>(&outcome)) {
            if (failures_.empty()) failed_at_ = monotonic_now();
            failures_.push_back(std::move(*broken));
        } else if (auto* fatal = std::get_if<session_outcome::Fatal>(&outcome)) {
            return tl::unexpected<Error>(fatal->error);
        } else if (auto* replicas = std::get_if<session_outcome::ReplicasLost>(&outcome)) {
            reasons_to_move_.push_back(replicas->device + ", which kept replicas, is gone");
            must_move_ = true;
        }
    }
    return {};
}

Result<void> ClusterSession::wait_for(
    const std::set<std::string>& wanted, Duration patience,
    const std::function<void(const std::vector<std::string>& missing)>& on_change) {
    WatchedDeadline deadline(monotonic_now(), patience, kSessionTick);
    std::optional<std::vector<std::string>> told;
    for (;;) {
        std::vector<std::string> missing;
        for (const std::string& device : wanted)
            if (!joined_.contains(device)) missing.push_back(device);
        if (missing != told) {
            on_change(missing);
            told = missing;
        }
        if (missing.empty() || deadline.over(monotonic_now())) return {};
        if (options_.check) ECOPIPE_RETURN_IF_ERROR(options_.check());
        if (options_.ended_processes)
            for (const LostProcess& lost : options_.ended_processes())
                return fail(ExitCode::kUnreachable,
                            fmt::format("device {}: its process {}", lost.device, lost.how));
        if (auto event = inbox_.pop_until(deadline.look_again()))
            ECOPIPE_RETURN_IF_ERROR(handle(*event));
    }
}

Result<LinkProbed> ClusterSession::probe_link(const std::string& from, const std::string& to) {
    // As for tensors: of two devices the first by name dials.
    const std::string& dialling = std::min(from, to);
    const std::string& dialled = std::max(from, to);
    probed_.reset();
    static_cast<void>(
        members_->send(dialling, header(0), ProbeLink{dialled, joined_.at(dialled).data_endpoint}));
    WatchedDeadline deadline(monotonic_now(), kProbeTimeout, kSessionTick);
    while (!probed_ && !deadline.over(monotonic_now()) && joined_.contains(from) &&
           joined_.contains(to)) {
        if (options_.check) ECOPIPE_RETURN_IF_ERROR(options_.check());
        if (auto event = inbox_.pop_until(deadline.look_again()))
            ECOPIPE_RETURN_IF_ERROR(handle(*event));
    }
    if (!probed_)
        return fail(
            ExitCode::kUnreachable,
            fmt::format("the link between {} and {} could not be measured within {} s: {} "
                        "dials {}",
                        from, to, kProbeTimeout.count(), dialling,
                        joined_.contains(dialled) ? joined_.at(dialled).data_endpoint : "nobody"));
    return *probed_;
}

void ClusterSession::set_plan(Plan plan, TrainingSpec spec, ModelInfo info) {
    plan_ = std::move(plan);
    spec_ = std::move(spec);
    info_ = std::move(info);
    index_ = PlanIndex(plan_);
    layer_bytes_.clear();
    std::vector<int> layers;
    for (const TensorInfo& tensor : info_.tensors) {
        const bool has_slots = tensor.trainable && tensor.same_as.empty();
        const double copies = has_slots ? 1 + spec_.optimizer.slots() : 1;
        layer_bytes_[tensor.layer] +=
            copies * static_cast<double>(checked_bytes(tensor.dtype, tensor.shape).value_or(0));
    }
    for (const auto& [layer, bytes] : layer_bytes_) layers.push_back(layer);
    machine_ = SessionMachine(std::move(layers));
}

FrameHeader ClusterSession::header(std::uint64_t step) const {
    FrameHeader header;
    header.generation = machine_.generation();
    header.step = step;
    return header;
}

TensorAddress ClusterSession::address(TensorKind kind, std::uint64_t step,
                                      std::uint32_t micro_batch) const {
    TensorAddress address;
    address.generation = machine_.generation();
    address.step = step;
    address.kind = kind;
    address.micro_batch = micro_batch;
    return address;
}

Configure ClusterSession::configuration(const session_outcome::SendConfigure& work) const {
    Configure out;
    out.plan_json = plan_text(plan_);
    out.device = work.device;
    out.model = spec_.model.zoo;
    out.model_sha256 = spec_.model.sha256;
    out.num_classes = static_cast<std::uint32_t>(spec_.model.num_classes);
    out.input_shape = spec_.model.input_shape;
    out.freeze = spec_.model.freeze;
    out.seed = spec_.seed;
    out.optimizer = spec_.optimizer;
    out.loss = spec_.loss;
    out.restore = work.restore;
    out.supply = work.supply;
    out.keep_snapshots = work.keep_snapshots;
    out.buddy = work.buddy;
    out.cause = work.cause;
    out.course = course_;
    // Of two devices the first by name dials, whatever the plan: a channel that stands is never
    // opened again from its other end.
    for (const std::string& peer : work.peers)
        if (const auto joined = joined_.find(peer); joined != joined_.end())
            out.peers.push_back({peer, joined->second.data_endpoint, work.device < peer,
                                 joined->second.hello.instance});
    return out;
}

void ClusterSession::send_configure(const session_outcome::SendConfigure& work) {
    configured_.insert(work.device);
    replicas_here_.rewind_to(work.restore_step);
    for (const LayerTransfer& transfer : work.restore)
        if (transfer.peer != work.device)
            for (const auto& [layer, bytes] : layer_bytes_)
                if (layer >= static_cast<int>(transfer.first_layer) &&
                    layer <= static_cast<int>(transfer.last_layer))
                    moved_bytes_ += bytes;
    const auto joined = joined_.find(work.device);
    if (joined == joined_.end()) return;
    static_cast<void>(members_->send(work.device, header(work.restore_step), configuration(work)));
    members_->work_due(true);
    const auto endpoint = parse_endpoint(joined->second.data_endpoint, work.device);
    const auto dialled = endpoint
                             ? data_->dial(work.device, *endpoint, joined->second.hello.instance)
                             : Result<void>(tl::unexpected<Error>(endpoint.error()));
    if (!dialled) log_warn("{}: {}", work.device, dialled.error().message);
}

// What the portal gives waits for the channel to stand.
void ClusterSession::supply_attached() {
    if (!supply_) return;
    std::erase_if(supply_->supply, [&](const LayerTransfer& transfer) {
        const auto joined = joined_.find(transfer.peer);
        const auto attached = attached_.find(transfer.peer);
        if (joined == joined_.end() || attached == attached_.end() ||
            attached->second != joined->second.hello.instance)
            return false;
        for (auto layer = static_cast<int>(transfer.first_layer);
             layer <= static_cast<int>(transfer.last_layer); ++layer) {
            const TensorMap* tensors = replicas_here_.find(supply_->step, layer);
            if (tensors == nullptr && base_step_ == supply_->step && base_.contains(layer))
                tensors = &base_.at(layer);
            if (tensors == nullptr) continue;  // a layer without state
            for (std::size_t i = 0; i < tensors->size(); ++i) {
                TensorAddress to = address(TensorKind::kState, supply_->step, 0);
                to.producer = static_cast<std::uint32_t>(layer);
                to.output = static_cast<std::uint16_t>(i);
                to.outputs = static_cast<std::uint16_t>(tensors->size());
                to.name = (*tensors)[i].name;
                data_->send(transfer.peer, std::move(to), (*tensors)[i].tensor);
            }
        }
        return true;
    });
}

std::set<std::string> ClusterSession::usable() const {
    std::set<std::string> devices;
    for (const auto& [device, joined] : joined_)
        if (!leaving_.contains(device) && !left_out_.contains(device)) devices.insert(device);
    return devices;
}

bool ClusterSession::has_part(const std::string& device) const {
    return index_.has(device) ||
           std::any_of(replicas_.buddies.begin(), replicas_.buddies.end(),
                       [&](const auto& entry) { return entry.second == device; });
}

Result<bool> ClusterSession::configure(Plan plan, const std::string& cause) {
    plan_ = std::move(plan);
    index_ = PlanIndex(plan_);
    for (const std::string& device : index_.devices())
        if (!joined_.contains(device))
            return fail(ExitCode::kUnreachable,
                        fmt::format("device {} of the plan has not joined", device));
    std::set<std::string> spares = usable();
    for (const std::string& device : index_.devices()) spares.erase(device);
    replicas_ = planner_ ? planner_->replicas(plan_, spares, layer_bytes_) : ReplicaPlan{};
    ready_.reset();
    supply_.reset();
    configured_.clear();
    unreached_since_.reset();
    moved_bytes_ = 0;
    std::vector<std::string> keep;
    for (const auto& [device, joined] : joined_) keep.push_back(device);
    data_->keep_only(keep, machine_.generation() + 1);
    ECOPIPE_RETURN_IF_ERROR(
        absorb(machine_.on(session_event::ConfigureWanted{plan_, replicas_, cause})));
    const auto unattached = [&]() -> std::optional<std::string> {
        for (const std::string& device : configured_)
            if (joined_.contains(device) && !attached(device)) return device;
        return std::nullopt;
    };
    const auto reached = pump([&] { return !unattached(); }, kReachTimeout, "reaching");
    if (!reached) {
        const auto device = unattached();
        if (reached.error().code != ExitCode::kUnreachable || !device)
            return tl::unexpected<Error>(reached.error());
        const std::string problem =
            fmt::format("device {} has joined, but its data port cannot be reached at {}", *device,
                        joined_.at(*device).data_endpoint);
        if (!planner_ || *device == options_.portal_device)
            return fail(ExitCode::kUnreachable, problem);
        log_warn("{}", problem);
        ECOPIPE_RETURN_IF_ERROR(settle_unreached());
        return false;
    }
    if (!*reached) return false;
    ECOPIPE_ASSIGN_OR_RETURN(
        const bool ready, pump([&] { return ready_.has_value(); }, kLongWait, "giving out layers"));
    if (!ready) return false;
    state_step_ = *ready_;
    drift_.plan_changed();
    observe([&](auto& observer) { observer.plan_in_force(plan_, cause); });
    const std::vector<std::string> left(leaving_.begin(), leaving_.end());
    for (const std::string& device : left)
        if (!has_part(device))
            ECOPIPE_RETURN_IF_ERROR(dismiss(device, ExitCode::kDone, "its layers are elsewhere"));
    return true;
}

void ClusterSession::note_event(OrderedJson what, Instant since) {
    what["generation"] = machine_.generation();
    what["bytes_moved"] = moved_bytes_;
    OrderedJson stages = OrderedJson::array();
    for (const StagePlan& stage : plan_.stages)
        stages.push_back({{"device", stage.device},
                          {"first_layer", stage.first_layer},
                          {"last_layer", stage.last_layer}});
    what["plan"] = std::move(stages);
    events_.push_back({std::move(what), since});
    for (const StagePlan& stage : plan_.stages)
        log_info("stage on {}: layers {}..{}, {} in flight{}", stage.device, stage.first_layer,
                 stage.last_layer, stage.in_flight, stage.recompute ? ", recomputing" : "");
}

Result<Plan> ClusterSession::plan_over_present() {
    WatchedDeadline deadline(monotonic_now(), from_ms(options_.rejoin_timeout_s * 1000),
                             kSessionTick);
    for (bool told = false;; told = true) {
        came_back_ = false;
        auto plan = planner_->plan(usable(), slowness_);
        if (plan) return plan;
        // A device that is about to leave is better than none.
        if (!leaving_.empty()) {
            std::set<std::string> all;
            for (const auto& [device, joined] : joined_)
                if (!left_out_.contains(device)) all.insert(device);
            if (auto with = planner_->plan(all, slowness_)) return with;
        }
        if (deadline.over(monotonic_now()))
            return fail(ExitCode::kUnreachable,
                        fmt::format("{}; over {} there is no plan: {}",
                                    failures_.empty() ? std::string("devices left")
                                                      : failures_.front().error.message,
                                    joined_.empty() ? "no device"
                                                    : fmt::format("{}", fmt::join(usable(), ", ")),
                                    plan.error().message));
        if (!told)
            log_warn(
                "those that are left cannot hold the model; waiting {} s for a device to "
                "come back: ecopipe-stage --join {} --name NAME",
                options_.rejoin_timeout_s, bound_.text());
        // The machine is broken, so the events are handled here.
        while (!came_back_ && !deadline.over(monotonic_now())) {
            if (auto event = inbox_.pop_until(deadline.look_again()))
                ECOPIPE_RETURN_IF_ERROR(handle(*event));
            ECOPIPE_RETURN_IF_ERROR(check_processes());
        }
    }
}

Result<bool> ClusterSession::all_committed() {
    ECOPIPE_ASSIGN_OR_RETURN(
        const bool done,
        pump_or_recover([&] { return machine_.all_committed(); }, kLongWait, "commit"));
    if (done && state_step_ > furthest_) {
        furthest_ = state_step_;
        breaks_ = 0;
    }
    return done;
}

Result<void> ClusterSession::recover() {
    for (;;) {
        // Failures seldom come alone: what is known by now is planned for together.
        while (auto event = inbox_.pop_until(monotonic_now()))
            ECOPIPE_RETURN_IF_ERROR(handle(*event));
        const Error cause = failures_.empty()
                                ? Error{ExitCode::kUnreachable, "the cluster is broken"}
                                : failures_.front().error;
        if (!planner_ || breaks_ == kBreaksMax) return tl::unexpected<Error>(cause);
        ++breaks_;
        log_warn("{}; all go back to a common state", cause.message);
        observe([&](auto& observer) { observer.failed(cause.message); });
        const std::uint64_t failed_step = step_;
        ECOPIPE_ASSIGN_OR_RETURN(Plan plan, plan_over_present());
        std::vector<std::string> causes;
        for (const auto& failure : failures_) causes.push_back(failure.error.message);
        ECOPIPE_ASSIGN_OR_RETURN(
            const bool ready,
            configure(std::move(plan), fmt::format("{}", fmt::join(causes, "; "))));
        if (!ready) continue;
        rewound_ = state_step_;
        next_move_step_ = state_step_ + kMoveCooldownSteps;
        OrderedJson devices = OrderedJson::array();
        for (const auto& failure : failures_)
            if (!failure.device.empty()) devices.push_back(failure.device);
        note_event({{"kind", "lost"},
                    {"devices", std::move(devices)},
                    {"cause", fmt::format("{}", fmt::join(causes, "; "))},
                    {"at_step", failed_step + 1},
                    {"replayed_from_step", state_step_ + 1}},
                   failed_at_);
        log_warn("recovered in {:.0f} ms: {} stages, from {}, {:.0f} bytes moved",
                 to_ms(monotonic_now() - failed_at_), plan_.stages.size(),
                 step_text(state_step_ + 1), moved_bytes_);
        failures_.clear();
        return {};
    }
}

double ClusterSession::bytes_to_move(const Plan& to) const {
    double sum = 0;
    const PlanIndex after(to);
    for (const auto& [layer, bytes] : layer_bytes_)
        for (const std::string& device : after.holders_of(layer))
            if (!index_.holds(device, layer)) sum += bytes;
    return sum;
}

Result<void> ClusterSession::consider_move(std::uint64_t step) {
    if (reasons_to_move_.empty() || !planner_) return {};
    if (!must_move_ && step < next_move_step_) return {};  // later
    ECOPIPE_ASSIGN_OR_RETURN(const bool committed, all_committed());
    if (!committed) return {};
    const Instant started = monotonic_now();
    const std::string reason = fmt::format("{}", fmt::join(reasons_to_move_, "; "));
    reasons_to_move_.clear();
    const bool must = std::exchange(must_move_, false);
    next_move_step_ = step + kMoveCooldownSteps;
    auto candidate = planner_->plan(usable(), slowness_);
    if (!candidate) {
        log_warn("{}, but there is no plan for that: {}", reason, candidate.error().message);
        return {};
    }
    const bool leaves = std::any_of(leaving_.begin(), leaving_.end(),
                                    [&](const auto& device) { return index_.has(device); });
    MoveOffer offer;
    if (!leaves) {
        ECOPIPE_ASSIGN_OR_RETURN(offer.current_step_ms, planner_->step_ms(plan_, slowness_));
        ECOPIPE_ASSIGN_OR_RETURN(offer.candidate_step_ms, planner_->step_ms(*candidate, slowness_));
        offer.remaining_steps = last_step_ > step ? last_step_ - step : 0;
        offer.bytes = bytes_to_move(*candidate);
        offer.slowest_mbps = planner_->slowest_mbps();
        offer.fixed_ms = kMoveFixedMs;
        const MoveVerdict verdict = weigh_move(offer);
        log_info("{}: the best plan now takes {:.2f} ms a step, the one in force {:.2f}: a move {}",
                 reason, offer.candidate_step_ms, offer.current_step_ms,
                 verdict.pays ? "pays" : "does not pay");
        if (!verdict.pays) {
            if (!must) return {};
            candidate = plan_;  // the layers stay; who keeps replicas changes
        }
    }
    ECOPIPE_ASSIGN_OR_RETURN(const bool ready, configure(std::move(*candidate), reason));
    if (!ready) return recover();
    // Nothing was under way, so nothing is replayed; the caller's step is the one to come.
    if (state_step_ != step) rewound_ = state_step_;
    note_event({{"kind", leaves ? "left" : "moved"},
                {"cause", reason},
                {"at_step", step + 1},
                {"current_step_ms", offer.current_step_ms},
                {"candidate_step_ms", offer.candidate_step_ms}},
               started);
    return {};
}

std::optional<std::uint64_t> ClusterSession::take_rewind() {
    return std::exchange(rewound_, std::nullopt);
}

std::vector<ClusterEvent> ClusterSession::take_events() { return std::exchange(events_, {}); }

Result<void> ClusterSession::index_base(const TensorMap& state, std::uint64_t step) {
    const StateNames names(info_);
    std::map<int, TensorMap> base;
    for (const NamedTensor& entry : state) {
        const std::optional<int> layer = names.layer_of(entry.name);
        if (!layer)
            return fail(ExitCode::kBadFile,
                        fmt::format("tensor {} is not of this model", printable(entry.name)));
        base[*layer].push_back(entry);
    }
    base_ = std::move(base);
    base_step_ = step;
    return {};
}

Result<void> ClusterSession::load(const TensorMap& state, std::uint64_t step) {
    if (machine_.generation() > 0) ECOPIPE_RETURN_IF_ERROR(all_committed());
    rewound_.reset();
    // Another course begins: nothing that anybody keeps of the one before is of it, whatever its
    // steps are called.
    ++course_;
    replicas_here_.clear();
    furthest_ = step;
    breaks_ = 0;
    ECOPIPE_RETURN_IF_ERROR(index_base(state, step));
    ECOPIPE_RETURN_IF_ERROR(absorb(machine_.on(session_event::BaseSet{step, true})));
    step_ = state_step_ = step;
    ECOPIPE_ASSIGN_OR_RETURN(const bool ready, configure(plan_, ""));
    if (!ready) ECOPIPE_RETURN_IF_ERROR(recover());
    rewound_.reset();  // the state that was to be loaded is the one that all have
    return {};
}

Result<void> ClusterSession::set_base(const TensorMap& state, std::uint64_t step) {
    ECOPIPE_RETURN_IF_ERROR(index_base(state, step));
    return absorb(machine_.on(session_event::BaseSet{step, false}));
}

Result<bool> ClusterSession::send_when_room(const std::string& device, TensorAddress to,
                                            HostTensor tensor) {
    while (!data_->wait_for_room(monotonic_now() + std::chrono::milliseconds(5))) {
        ECOPIPE_RETURN_IF_ERROR(check_processes());
        while (auto event = inbox_.pop_until(monotonic_now()))
            ECOPIPE_RETURN_IF_ERROR(handle(*event));
        if (machine_.broken()) return false;
    }
    data_->send(device, std::move(to), std::move(tensor));
    return true;
}

Result<void> ClusterSession::start_step(std::uint64_t step, std::vector<Batch> micro_batches,
                                        double loss_divisor, bool trace) {
    ECOPIPE_RETURN_IF_ERROR(consider_move(step));
    if (rewound_) return {};
    step_ = step;
    done_.reset();
    traced_.clear();
    begin_ = {};
    begin_.loss_divisor = loss_divisor;
    begin_.trace = trace;
    for (const Batch& batch : micro_batches)
        begin_.micro_batch_samples.push_back(static_cast<std::uint32_t>(batch.labels.shape()[0]));
    ECOPIPE_RETURN_IF_ERROR(absorb(machine_.on(session_event::BeginWanted{step, false})));
    for (std::size_t m = 0; m < micro_batches.size() && !machine_.broken(); ++m) {
        const auto id = static_cast<std::uint32_t>(m);
        ECOPIPE_RETURN_IF_ERROR(send_when_room(plan_.stages.front().device,
                                               address(TensorKind::kInput, step, id),
                                               std::move(micro_batches[m].inputs)));
        ECOPIPE_RETURN_IF_ERROR(send_when_room(plan_.stages.back().device,
                                               address(TensorKind::kLabel, step, id),
                                               std::move(micro_batches[m].labels)));
    }
    return {};  // a failure shows in finish_step
}

Result<StepOutcome> ClusterSession::finish_step() {
    StepOutcome outcome;
    if (rewound_) return outcome;
    ECOPIPE_ASSIGN_OR_RETURN(const bool finished, pump_or_recover([&] { return done_.has_value(); },
                                                                  kLongWait, step_text(step_ + 1)));
    if (!finished) return outcome;
    outcome.squared_gradient_norms.assign(info_.layers.size(), 0);
    for (auto& [device, done] : done_->done) {
        outcome.loss.add(done.loss);
        if (done.nonfinite_layer >= 0 &&
            (outcome.nonfinite_layer < 0 || done.nonfinite_layer < outcome.nonfinite_layer))
            outcome.nonfinite_layer = done.nonfinite_layer;
        std::size_t next = 0;
        for (const StageId stage : index_.stages_of(device)) {
            const LayerRange layers = index_.layers_of(stage);
            for (int layer = layers.first; layer <= layers.last; ++layer)
                if (next < done.squared_gradient_norms.size())
                    outcome.squared_gradient_norms[static_cast<std::size_t>(layer)] =
                        done.squared_gradient_norms[next++];
        }
    }
    const bool whole_batch =
        std::accumulate(begin_.micro_batch_samples.begin(), begin_.micro_batch_samples.end(), 0U) ==
        static_cast<std::uint32_t>(plan_.batch);
    for (const std::string& device : index_.devices()) {
        Done& done = done_->done[device];
        if (const auto drift =
                whole_batch ? drift_.step(device, done.busy_ms) : std::optional<Drift>()) {
            double& times = slowness_.try_emplace(device, 1.0).first->second;
            times *= drift->factor;
            reasons_to_move_.push_back(
                fmt::format("{} takes {:.2f} times as long as before", device, drift->factor));
        }
        std::vector<ActionTime> actions = std::move(traced_[device]);
        actions.insert(actions.end(), done.actions.begin(), done.actions.end());
        outcome.devices.push_back({device, done.busy_ms, done.wait_ms, done.peak_bytes,
                                   done.sent_bytes, members_->clock_offset_ns(device),
                                   std::move(actions)});
    }
    outcome.recovery_point = machine_.recovery_point();
    return outcome;
}

Result<void> ClusterSession::commit(double learning_rate, double gradient_scale) {
    ECOPIPE_ASSIGN_OR_RETURN(const bool committed, all_committed());
    if (!committed) return {};
    commit_ = {learning_rate, gradient_scale, false};
    ECOPIPE_RETURN_IF_ERROR(absorb(machine_.on(session_event::CommitWanted{})));
    state_step_ = step_ + 1;
    return {};
}

Result<LossTotals> ClusterSession::evaluate(const Dataset& data, int batch, int readers) {
    LossTotals loss;
    ECOPIPE_ASSIGN_OR_RETURN(const bool committed, all_committed());
    if (!committed) return loss;
    done_.reset();
    begin_ = {};
    begin_.mode = StepMode::kEvaluate;
    EvaluationReader reader(data, batch, readers);
    for (std::uint64_t m = 0; m < reader.count(); ++m)
        begin_.micro_batch_samples.push_back(static_cast<std::uint32_t>(reader.samples(m)));
    step_ = state_step_;  // an evaluation's tensors are of the step that comes next
    ECOPIPE_RETURN_IF_ERROR(absorb(machine_.on(session_event::BeginWanted{step_, true})));
    for (std::uint64_t m = 0; m < reader.count() && !machine_.broken(); ++m) {
        ECOPIPE_ASSIGN_OR_RETURN(Batch part, reader.take());
        const auto id = static_cast<std::uint32_t>(m);
        ECOPIPE_RETURN_IF_ERROR(send_when_room(plan_.stages.back().device,
                                               address(TensorKind::kEvalLabel, step_, id),
                                               std::move(part.labels)));
        ECOPIPE_RETURN_IF_ERROR(send_when_room(plan_.stages.front().device,
                                               address(TensorKind::kEvalInput, step_, id),
                                               std::move(part.inputs)));
    }
    ECOPIPE_ASSIGN_OR_RETURN(const bool finished, pump_or_recover([&] { return done_.has_value(); },
                                                                  kLongWait, "evaluation"));
    if (!finished) return loss;
    for (const auto& [device, done] : done_->done) loss.add(done.loss);
    return loss;
}

Result<TensorMap> ClusterSession::state(bool optimizer_state) {
    ECOPIPE_ASSIGN_OR_RETURN(const bool committed, all_committed());
    if (!committed) return TensorMap();
    fetched_.reset();
    fetched_state_.clear();
    fetch_ = {optimizer_state};
    ECOPIPE_RETURN_IF_ERROR(absorb(machine_.on(session_event::FetchWanted{})));
    ECOPIPE_ASSIGN_OR_RETURN(
        const bool complete,
        pump_or_recover([&] { return fetched_.has_value() && fetched_state_.size() >= *fetched_; },
                        kLongWait, "collecting the weights"));
    if (!complete) return TensorMap();
    StateNames(info_).sort(fetched_state_);
    return std::move(fetched_state_);
}

void ClusterSession::end(ExitCode code, const std::string& reason) {
    ended_ = true;
    for (const auto& [device, joined] : joined_)
        static_cast<void>(
            members_->send(device, header(step_), End{static_cast<std::uint8_t>(code), reason}));
    members_->close();
    // The sockets linger on close; this lets the network thread hand the words over first.
    static_cast<void>(inbox_.pop_until(monotonic_now() + kEndLinger));
}

}  // namespace ecopipe
