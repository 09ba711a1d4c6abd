#include "orchestrator/session/portal_driver.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "core/check.h"
#include "core/log.h"
#include "core/overloaded.h"
#include "planner/schedule/plan_file.h"
#include "stage_runtime/stage/state_exchange.h"
#include "transport/wire/codec.h"

namespace ecopipe {
namespace {

constexpr auto kProbeTimeout = std::chrono::seconds(60);            // of one link
constexpr auto kReachTimeout = std::chrono::seconds(15);            // to open the data channels
constexpr auto kUnreachedSettle = std::chrono::milliseconds(1500);  // for all to tell
constexpr std::size_t kTracedActionsMax = 1U << 20;                 // of a device, in a step

std::string listed(const std::vector<std::string>& texts, const char* separator) {
    return fmt::format("{}", fmt::join(texts, separator));
}

}  // namespace

PortalDriver::PortalDriver(PortalSide& side, PortalOptions options)
    : side_(side), options_(std::move(options)), moves_(options_.moves) {}

Result<void> PortalDriver::drain() {
    while (auto event = side_.next(side_.now())) ECOPIPE_RETURN_IF_ERROR(handle(*event));
    return {};
}

Result<void> PortalDriver::check_processes() {
    for (const LostProcess& lost : side_.ended_processes()) {
        // What it said before it ended tells more; its connection's end tells less.
        ECOPIPE_RETURN_IF_ERROR(drain());
        side_.declare_lost(lost.device, lost.how);  // unless that is known by now
    }
    return side_.check();
}

Result<bool> PortalDriver::pump(const Condition& finished, Duration patience,
                                const std::string& doing) {
    WatchedDeadline deadline(side_.now(), patience, kPortalTick);
    for (;;) {
        if (machine_.broken()) return false;
        if (finished()) return true;
        const Instant now = side_.now();
        const bool over = deadline.over(now);
        roster_.not_run(deadline.not_run());
        if (const auto since = roster_.unreached_since();
            since && now - *since >= kUnreachedSettle) {
            ECOPIPE_RETURN_IF_ERROR(settle_unreached());
            continue;
        }
        if (over)
            return fail(ExitCode::kUnreachable,
                        fmt::format("{}: waited in vain for {}", doing, machine_.waiting_for()));
        // Messages first: a device that failed says why before its process ends.
        if (auto event = side_.next(deadline.look_again())) {
            ECOPIPE_RETURN_IF_ERROR(handle(*event));
        } else {
            ECOPIPE_RETURN_IF_ERROR(check_processes());
        }
    }
}

Result<bool> PortalDriver::pump_or_recover(const Condition& finished, Duration patience,
                                           const std::string& doing) {
    ECOPIPE_ASSIGN_OR_RETURN(const bool done, pump(finished, patience, doing));
    if (done) return true;
    ECOPIPE_RETURN_IF_ERROR(recover());
    return false;
}

// A state's tensors are due too, once every device has said that it sent its own: a channel that
// broke meanwhile may have lost some.
void PortalDriver::progressed() { side_.work_due(machine_.work_is_due() || depot_.collecting()); }

Result<void> PortalDriver::handle(PortalEvent& event) {
    return std::visit([this](auto& what) { return on_event(what); }, event);
}

Result<void> PortalDriver::on_event(portal_event::Joined& joined) {
    const Hello& hello = joined.hello;
    // What it says of itself is a peer's word: what is no address would be dialled by all.
    std::string host = parse_host(hello.data_address, "data_address").value_or("");
    if (host.empty()) {
        const auto known = options_.data_address.find(joined.device);
        host = known != options_.data_address.end() ? known->second : joined.address;
    }
    if (host.empty()) host = "127.0.0.1";
    roster_.join(joined.device, {hello, Endpoint{host, hello.data_port}.text()});
    moves_.another_process(joined.device);
    log_info("{} joined: {}, {} of {} cores, {} MiB free", joined.device, printable(hello.cpu),
             hello.threads, hello.cores, hello.memory_mib);
    if (hello.threads == 1 && hello.cores > 1 && !options_.shared_machine)
        log_warn(
            "{} computes on one of its {} cores: --threads {} (and threads: in the cluster "
            "file, a profile with --threads) may be faster",
            joined.device, hello.cores, hello.cores);
    introduce_all();
    came_back_ = true;
    observe([&](auto& observer) {
        observer.device_joined(joined.device, static_cast<double>(hello.memory_mib));
    });
    if (machine_.generation() > 0) moves_.because(joined.device + " joined");
    return feed(session_event::DeviceJoined{joined.device});
}

Result<void> PortalDriver::on_event(portal_event::Lost& lost) {
    roster_.gone(lost.device);
    log_warn("{} was lost: {}", lost.device, lost.how);
    observe([&](auto& observer) { observer.device_gone(lost.device, lost.how); });
    introduce_all();
    return feed(session_event::DeviceLost{lost.device, lost.how});
}

Result<void> PortalDriver::on_event(portal_event::Attached& attached) {
    roster_.attach(attached.device, attached.instance);
    supply_attached();
    return {};
}

Result<void> PortalDriver::on_event(portal_event::Stalled& stalled) {
    return feed(session_event::Stalled{stalled.how});
}

Result<void> PortalDriver::on_event(Delivery& delivery) {
    const TensorAddress& at = delivery.address;
    if (at.generation != machine_.generation()) return {};
    Result<void> handled;
    if (at.kind == TensorKind::kState) {
        depot_.collected({at.name, std::move(delivery.tensor)});
    } else if (at.kind == TensorKind::kReplica) {
        if (depot_.replicas().add(at.step, static_cast<int>(at.producer), at.output, at.outputs,
                                  {at.name, std::move(delivery.tensor)}))
            handled = feed(session_event::StoredReceived{kPortalPeer, at.generation, at.step,
                                                         Stored{at.producer, at.producer}});
    }
    progressed();  // what it was is no longer due
    return handled;
}

Result<void> PortalDriver::on_event(portal_event::Message& message) {
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
            handled = feed(session_event::ReadyReceived{message.device, head.generation});
            break;
        case MessageType::kDone: {
            auto done = decode<Done>(body);
            if (!done) return bad(done.error());
            note_memory(message.device, done->peak_memory);
            handled = feed(session_event::DoneReceived{message.device, head.generation, head.step,
                                                       std::move(*done)});
            break;
        }
        case MessageType::kTrace: {
            auto trace = decode<Trace>(body);
            if (!trace) return bad(trace.error());
            if (head.generation != machine_.generation() || head.step != step_) return {};
            std::vector<ActionTime>& traced = traced_[message.device];
            if (traced.size() < kTracedActionsMax)
                traced.insert(traced.end(), trace->actions.begin(), trace->actions.end());
            for (const MicroBatchLoss& each : trace->losses)
                if (each.micro_batch < begin_.micro_batch_samples.size())
                    losses_[each.micro_batch] = each.loss;
            break;
        }
        case MessageType::kCommitted:
            handled =
                feed(session_event::CommittedReceived{message.device, head.generation, head.step});
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
            return feed(
                session_event::StoredReceived{message.device, head.generation, head.step, *stored});
        }
        case MessageType::kFetched: {
            const auto fetched = decode<Fetched>(body);
            if (!fetched) return bad(fetched.error());
            note_memory(message.device, fetched->peak_memory);
            handled = feed(session_event::FetchedReceived{message.device, head.generation,
                                                          fetched->state_tensors});
            break;
        }
        case MessageType::kUnreached: {
            const auto unreached = decode<Unreached>(body);
            if (!unreached) return bad(unreached.error());
            if (head.generation == machine_.generation())
                roster_.told_unreached(message.device, unreached->devices, side_.now());
            return {};
        }
        case MessageType::kMemoryMoved: {
            const auto moved = decode<MemoryMoved>(body);
            if (!moved) return bad(moved.error());
            if (head.generation == machine_.generation()) on_memory(message.device, *moved);
            return {};
        }
        case MessageType::kLeave: {
            const auto leave = decode<Leave>(body);
            if (!leave) return bad(leave.error());
            return on_leave(message.device, *leave);
        }
        case MessageType::kFailed: {
            const auto failed = decode<Failed>(body);
            if (!failed) return bad(failed.error());
            return on_failed(message.device, head, *failed);
        }
        default:
            odd_messages_.tell(
                fmt::format("{} sent an unexpected message of type {}", message.device, head.type));
            return {};
    }
    progressed();
    return handled;
}

Result<void> PortalDriver::on_leave(const std::string& device, const Leave& leave) {
    log_info("{} asks to leave: {}", device, printable(leave.reason));
    if (!has_part(device)) return dismiss(device, ExitCode::kDone, "not needed");
    roster_.leaves(device);
    observe([&](auto& observer) { observer.device_leaves(device); });
    moves_.because(device + " leaves", true);
    return {};
}

Result<void> PortalDriver::on_failed(const std::string& device, const FrameHeader& head,
                                     const Failed& failed) {
    const auto code = static_cast<ExitCode>(failed.code);
    ECOPIPE_RETURN_IF_ERROR(feed(session_event::DeviceFailed{device, head.step, head.micro_batch,
                                                             code, printable(failed.reason)}));
    return dismiss(device, code, failed.reason);
}

Result<void> PortalDriver::dismiss(const std::string& device, ExitCode code,
                                   const std::string& reason) {
    tell(device, header(step_), End{static_cast<std::uint8_t>(code), reason});
    if (const JoinedDevice* joined = roster_.find(device))
        side_.forget(device, joined->hello.instance);
    roster_.gone(device);
    observe([&](auto& observer) { observer.device_gone(device, printable(reason)); });
    introduce_all();
    return feed(session_event::DeviceLost{device, "it left"});
}

Result<void> PortalDriver::settle_unreached() {
    roster_.unreached_settled();
    if (ready_) {
        roster_.all_reached();
        return {};
    }
    roster_.note_unattached(configured_);
    const auto step_over = [&](const std::set<std::string>& devices) -> std::optional<double> {
        const auto plan = planner_->plan(devices, moves_.conditions());
        if (!plan || !plan->predicted) return std::nullopt;
        return plan->predicted->step_ms + plan->predicted->control_ms;
    };
    std::vector<std::string> pairs;
    for (const auto& [from, to] : roster_.unreached())
        if (!roster_.left_out(from) && !roster_.left_out(to))
            pairs.push_back(fmt::format("{} cannot reach {} at {}",
                                        from == kPortalPeer ? "the portal" : from, to,
                                        roster_.find(to)->data_endpoint));
    if (pairs.empty()) return {};
    const std::string problem = listed(pairs, ", ");
    std::set<std::string> out;
    if (planner_)
        out = whom_to_leave_out(roster_.unreached(), roster_.usable(),
                                {kPortalPeer, options_.portal_device}, step_over);
    const std::vector<std::string> fresh = roster_.leave_out(out);
    if (fresh.empty()) return fail(ExitCode::kUnreachable, problem);
    return feed(session_event::Unreachable{
        fmt::format("{}; the others go on without {}", problem, fmt::join(fresh, ", ")), out});
}

void PortalDriver::introduce_all() {
    const std::vector<std::string> devices = roster_.devices();
    const std::vector<Introduction> known = side_.keys_of(devices);
    if (known.empty()) return;
    for (const std::string& device : devices) {
        Introduce others{known};
        std::erase_if(others.peers,
                      [&](const Introduction& peer) { return peer.device == device; });
        tell(device, header(0), std::move(others));
    }
}

Result<void> PortalDriver::feed(const SessionEvent& event) {
    for (SessionOutcome& outcome : machine_.on(event)) ECOPIPE_RETURN_IF_ERROR(carry_out(outcome));
    return {};
}

void PortalDriver::tell(const std::string& device, const FrameHeader& head, PortalMessage message) {
    if (const JoinedDevice* joined = roster_.find(device))
        side_.send(device, joined->hello.instance, head, std::move(message));
}

template <class Message>
void PortalDriver::send_to(const std::vector<std::string>& devices, const FrameHeader& head,
                           const Message& message) {
    for (const std::string& device : devices) tell(device, head, message);
    side_.work_due(true);
}

Result<void> PortalDriver::carry_out(SessionOutcome& outcome) {
    return std::visit(Overloaded{
                          [this](session_outcome::SendConfigure& work) -> Result<void> {
                              send_configure(work);
                              return {};
                          },
                          [this](session_outcome::SupplyFromPortal& supply) -> Result<void> {
                              supply_ = std::move(supply);
                              supply_attached();
                              return {};
                          },
                          [this](session_outcome::SendBegin& begin) -> Result<void> {
                              begin_.recovery_point = begin.recovery_point;
                              send_to(begin.devices, header(begin.step), begin_);
                              return {};
                          },
                          [this](session_outcome::SendCommit& commit) -> Result<void> {
                              commit_.snapshot = commit.snapshot;
                              send_to(commit.devices, header(commit.step), commit_);
                              return {};
                          },
                          [this](session_outcome::SendFetch& fetch) -> Result<void> {
                              send_to(fetch.devices, header(step_), fetch_);
                              return {};
                          },
                          [this](session_outcome::AllReady& ready) -> Result<void> {
                              ready_ = ready.step;
                              return {};
                          },
                          [this](session_outcome::AllDone& done) -> Result<void> {
                              done_ = std::move(done);
                              return {};
                          },
                          // The machine is asked: all_committed().
                          [](session_outcome::AllCommitted&) -> Result<void> { return {}; },
                          [this](session_outcome::AllFetched& fetched) -> Result<void> {
                              depot_.expect(fetched.state_tensors);
                              return {};
                          },
                          [this](session_outcome::RecoveryPoint& point) -> Result<void> {
                              depot_.replicas().drop_before(point.step);
                              return {};
                          },
                          [this](session_outcome::Broken& broken) -> Result<void> {
                              if (failures_.empty()) failed_at_ = side_.now();
                              failures_.push_back(std::move(broken));
                              return {};
                          },
                          [](session_outcome::Fatal& fatal) -> Result<void> {
                              return tl::unexpected<Error>(fatal.error);
                          },
                          [this](session_outcome::ReplicasLost& replicas) -> Result<void> {
                              moves_.because(replicas.device + ", which kept replicas, is gone",
                                             true);
                              return {};
                          },
                      },
                      outcome);
}

Result<void> PortalDriver::wait_for(
    const std::set<std::string>& wanted, Duration patience,
    const std::function<void(const std::vector<std::string>& missing)>& on_change) {
    WatchedDeadline deadline(side_.now(), patience, kPortalTick);
    std::optional<std::vector<std::string>> told;
    for (;;) {
        std::vector<std::string> missing;
        for (const std::string& device : wanted)
            if (!roster_.has(device)) missing.push_back(device);
        if (missing != told) {
            on_change(missing);
            told = missing;
        }
        if (missing.empty() || deadline.over(side_.now())) return {};
        ECOPIPE_RETURN_IF_ERROR(side_.check());
        for (const LostProcess& lost : side_.ended_processes())
            return fail(ExitCode::kUnreachable,
                        fmt::format("device {}: {}", lost.device, lost.how));
        if (auto event = side_.next(deadline.look_again())) ECOPIPE_RETURN_IF_ERROR(handle(*event));
    }
}

Result<LinkProbed> PortalDriver::probe_link(const std::string& from, const std::string& to) {
    // As for tensors: of two devices the first by name dials.
    const std::string& dialling = std::min(from, to);
    const std::string& dialled = std::max(from, to);
    probed_.reset();
    tell(dialling, header(0), ProbeLink{dialled, roster_.find(dialled)->data_endpoint});
    WatchedDeadline deadline(side_.now(), kProbeTimeout, kPortalTick);
    while (!probed_ && !deadline.over(side_.now()) && roster_.has(from) && roster_.has(to)) {
        ECOPIPE_RETURN_IF_ERROR(side_.check());
        if (auto event = side_.next(deadline.look_again())) ECOPIPE_RETURN_IF_ERROR(handle(*event));
    }
    if (probed_) return *probed_;
    const JoinedDevice* there = roster_.find(dialled);
    return fail(ExitCode::kUnreachable,
                fmt::format("the link between {} and {} could not be measured within {} s: {} "
                            "dials {}",
                            from, to, kProbeTimeout.count(), dialling,
                            there != nullptr ? there->data_endpoint : "nobody"));
}

void PortalDriver::set_plan(Plan plan, TrainingSpec spec, ModelInfo info) {
    ECOPIPE_CHECK(machine_.generation() == 0);
    plan_ = std::move(plan);
    flow_ = info.flow;
    index_ = PlanIndex(plan_, flow_);
    spec_ = std::move(spec);
    depot_.set_model(std::move(info), spec_.optimizer);
    std::vector<int> layers;
    for (const auto& [layer, bytes] : depot_.layer_bytes()) layers.push_back(layer);
    machine_ = SessionMachine(std::move(layers), flow_);
}

FrameHeader PortalDriver::header(std::uint64_t step) const {
    FrameHeader header;
    header.generation = machine_.generation();
    header.step = step;
    return header;
}

TensorAddress PortalDriver::address(TensorKind kind, std::uint64_t step,
                                    std::uint64_t micro_batch) const {
    TensorAddress address;
    address.generation = machine_.generation();
    address.step = step;
    address.kind = kind;
    address.micro_batch = static_cast<std::uint32_t>(micro_batch);
    return address;
}

Configure PortalDriver::configuration(const session_outcome::SendConfigure& work) const {
    Configure out;
    out.plan_json = plan_text(plan_);
    out.device = work.device;
    out.model = spec_.model.zoo;
    out.model_sha256 = spec_.model.sha256;
    out.graph = spec_.model.graph;
    out.num_classes = static_cast<std::uint32_t>(spec_.model.num_classes);
    out.input_shape = spec_.model.input_shape;
    out.freeze = spec_.model.freeze;
    out.frozen_norm_evaluates = spec_.model.frozen_norm_evaluates;
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
        if (const JoinedDevice* joined = roster_.find(peer))
            out.peers.push_back(
                {peer, joined->data_endpoint, work.device < peer, joined->hello.instance});
    return out;
}

void PortalDriver::send_configure(const session_outcome::SendConfigure& work) {
    configured_.insert(work.device);
    depot_.replicas().rewind_to(work.restore_step);
    for (const LayerTransfer& transfer : work.restore)
        if (transfer.peer != work.device)
            for (const auto& [layer, bytes] : depot_.layer_bytes())
                if (layer >= static_cast<int>(transfer.first_layer) &&
                    layer <= static_cast<int>(transfer.last_layer))
                    moved_bytes_ += bytes;
    const JoinedDevice* joined = roster_.find(work.device);
    if (joined == nullptr) return;
    tell(work.device, header(work.restore_step), configuration(work));
    side_.work_due(true);
    const auto endpoint = parse_endpoint(joined->data_endpoint, work.device);
    const auto dialled = endpoint ? channels_->dial(work.device, *endpoint, joined->hello.instance)
                                  : Result<void>(tl::unexpected<Error>(endpoint.error()));
    if (!dialled) log_warn("{}: {}", work.device, dialled.error().message);
}

void PortalDriver::supply_attached() {
    if (!supply_) return;
    std::erase_if(supply_->supply, [&](const LayerTransfer& transfer) {
        if (!roster_.attached(transfer.peer)) return false;
        for (auto layer = static_cast<int>(transfer.first_layer);
             layer <= static_cast<int>(transfer.last_layer); ++layer) {
            // A layer without state has nothing to be given.
            if (const TensorMap* tensors = depot_.find(supply_->step, layer))
                send_layer(*channels_, transfer.peer, TensorKind::kState, machine_.generation(),
                           supply_->step, layer, *tensors);
        }
        return true;
    });
}

void PortalDriver::note_memory(const std::string& device, const MemoryByUse& peak) {
    MemoryByUse& most = peaks_[device];
    if (peak.total() > most.total()) most = peak;
}

bool PortalDriver::has_part(const std::string& device) const {
    return index_.has(device) || replicas_.keeps(device);
}

Result<bool> PortalDriver::configure(Plan plan, const std::string& cause) {
    plan_ = std::move(plan);
    index_ = PlanIndex(plan_, flow_);
    for (const std::string& device : index_.devices())
        if (!roster_.has(device))
            return fail(ExitCode::kUnreachable,
                        fmt::format("device {} of the plan has not joined", device));
    std::set<std::string> spares = roster_.usable();
    for (const std::string& device : index_.devices()) spares.erase(device);
    replicas_ = planner_ ? planner_->replicas(plan_, spares, depot_.layer_bytes()) : ReplicaPlan{};
    ready_.reset();
    supply_.reset();
    configured_.clear();
    roster_.unreached_settled();
    moved_bytes_ = 0;
    channels_->keep_only(roster_.devices(), machine_.generation() + 1);
    ECOPIPE_RETURN_IF_ERROR(feed(session_event::ConfigureWanted{plan_, replicas_, cause}));
    const auto unattached = [&]() -> std::optional<std::string> {
        for (const std::string& device : configured_)
            if (roster_.has(device) && !roster_.attached(device)) return device;
        return std::nullopt;
    };
    const auto reached = pump([&] { return !unattached(); }, kReachTimeout, "reaching");
    if (!reached) {
        const auto device = unattached();
        if (reached.error().code != ExitCode::kUnreachable || !device)
            return tl::unexpected<Error>(reached.error());
        const std::string problem =
            fmt::format("device {} has joined, but its data port cannot be reached at {}", *device,
                        roster_.find(*device)->data_endpoint);
        if (!planner_ || *device == options_.portal_device)
            return fail(ExitCode::kUnreachable, problem);
        log_warn("{}", problem);
        ECOPIPE_RETURN_IF_ERROR(settle_unreached());
        return false;
    }
    if (!*reached) return false;
    ECOPIPE_ASSIGN_OR_RETURN(const bool ready, pump([&] { return ready_.has_value(); },
                                                    kAnswersWait, "giving out layers"));
    if (!ready) return false;
    state_step_ = *ready_;
    moves_.plan_changed();
    observe([&](auto& observer) { observer.plan_in_force(plan_, cause); });
    const std::set<std::string> leaving = roster_.leaving();
    for (const std::string& device : leaving)
        if (!has_part(device))
            ECOPIPE_RETURN_IF_ERROR(dismiss(device, ExitCode::kDone, "its layers are elsewhere"));
    return true;
}

}  // namespace ecopipe
