#include "orchestrator/session/portal_driver.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/log.h"
#include "core/overloaded.h"
#include "core/step_number.h"
#include "planner/schedule/plan_file.h"
#include "stage_runtime/data/evaluation_reader.h"
#include "transport/wire/codec.h"

namespace ecopipe {
namespace {

constexpr auto kProbeTimeout = std::chrono::seconds(60);            // of one link
constexpr auto kReachTimeout = std::chrono::seconds(15);            // to open the data channels
constexpr auto kUnreachedSettle = std::chrono::milliseconds(1500);  // for all to tell
constexpr auto kLongWait = std::chrono::minutes(60);  // liveness ends a dead wait far earlier
constexpr int kBreaksMax = 20;                        // without a step that is new in between
constexpr std::size_t kTracedActionsMax = 1U << 20;   // of a device, in a step

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
    progressed();
    if (at.kind == TensorKind::kState) {
        depot_.collected({at.name, std::move(delivery.tensor)});
    } else if (at.kind == TensorKind::kReplica) {
        if (depot_.replicas().add(at.step, static_cast<int>(at.producer), at.output, at.outputs,
                                  {at.name, std::move(delivery.tensor)}))
            return feed(session_event::StoredReceived{kPortalPeer, at.generation, at.step,
                                                      Stored{at.producer, at.producer}});
    }
    return {};
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
    side_.send(device, header(step_), End{static_cast<std::uint8_t>(code), reason});
    side_.forget(device);
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
        const auto plan = planner_->plan(devices, moves_.slowness());
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
        side_.send(device, header(0), std::move(others));
    }
}

Result<void> PortalDriver::feed(const SessionEvent& event) {
    for (SessionOutcome& outcome : machine_.on(event)) ECOPIPE_RETURN_IF_ERROR(carry_out(outcome));
    return {};
}

template <class Message>
void PortalDriver::send_to(const std::vector<std::string>& devices, const FrameHeader& head,
                           const Message& message) {
    for (const std::string& device : devices) side_.send(device, head, message);
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
                        fmt::format("device {}: its process {}", lost.device, lost.how));
        if (auto event = side_.next(deadline.look_again())) ECOPIPE_RETURN_IF_ERROR(handle(*event));
    }
}

Result<LinkProbed> PortalDriver::probe_link(const std::string& from, const std::string& to) {
    // As for tensors: of two devices the first by name dials.
    const std::string& dialling = std::min(from, to);
    const std::string& dialled = std::max(from, to);
    probed_.reset();
    side_.send(dialling, header(0), ProbeLink{dialled, roster_.find(dialled)->data_endpoint});
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
    plan_ = std::move(plan);
    index_ = PlanIndex(plan_);
    spec_ = std::move(spec);
    depot_.set_model(std::move(info), spec_.optimizer);
    std::vector<int> layers;
    for (const auto& [layer, bytes] : depot_.layer_bytes()) layers.push_back(layer);
    machine_ = SessionMachine(std::move(layers));
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
    side_.send(work.device, header(work.restore_step), configuration(work));
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
            const TensorMap* tensors = depot_.find(supply_->step, layer);
            if (tensors == nullptr) continue;  // a layer without state
            for (std::size_t i = 0; i < tensors->size(); ++i) {
                TensorAddress to = address(TensorKind::kState, supply_->step, 0);
                to.producer = static_cast<std::uint32_t>(layer);
                to.output = static_cast<std::uint16_t>(i);
                to.outputs = static_cast<std::uint16_t>(tensors->size());
                to.name = (*tensors)[i].name;
                channels_->send(transfer.peer, std::move(to), (*tensors)[i].tensor);
            }
        }
        return true;
    });
}

bool PortalDriver::has_part(const std::string& device) const {
    return index_.has(device) ||
           std::any_of(replicas_.buddies.begin(), replicas_.buddies.end(),
                       [&](const auto& entry) { return entry.second == device; });
}

Result<bool> PortalDriver::configure(Plan plan, const std::string& cause) {
    plan_ = std::move(plan);
    index_ = PlanIndex(plan_);
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
    ECOPIPE_ASSIGN_OR_RETURN(
        const bool ready, pump([&] { return ready_.has_value(); }, kLongWait, "giving out layers"));
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

void PortalDriver::note_event(OrderedJson what, Instant since) {
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

Result<Plan> PortalDriver::plan_over_present() {
    WatchedDeadline deadline(side_.now(), from_ms(options_.rejoin_timeout_s * 1000), kPortalTick);
    for (bool told = false;; told = true) {
        came_back_ = false;
        auto plan = planner_->plan(roster_.usable(), moves_.slowness());
        if (plan) return plan;
        // A device that is about to leave is better than none.
        if (!roster_.leaving().empty())
            if (auto with = planner_->plan(roster_.present(), moves_.slowness())) return with;
        if (deadline.over(side_.now()))
            return fail(ExitCode::kUnreachable,
                        fmt::format("{}; over {} there is no plan: {}",
                                    failures_.empty() ? std::string("devices left")
                                                      : failures_.front().error.message,
                                    roster_.joined().empty()
                                        ? "no device"
                                        : fmt::format("{}", fmt::join(roster_.usable(), ", ")),
                                    plan.error().message));
        if (!told)
            log_warn(
                "those that are left cannot hold the model; waiting {} s for a device to "
                "come back: ecopipe-stage --join {} --name NAME",
                options_.rejoin_timeout_s, join_address_);
        // The machine is broken, so the events are handled here.
        while (!came_back_ && !deadline.over(side_.now())) {
            if (auto event = side_.next(deadline.look_again()))
                ECOPIPE_RETURN_IF_ERROR(handle(*event));
            ECOPIPE_RETURN_IF_ERROR(check_processes());
        }
    }
}

Result<bool> PortalDriver::all_committed() {
    ECOPIPE_ASSIGN_OR_RETURN(
        const bool done,
        pump_or_recover([&] { return machine_.all_committed(); }, kLongWait, "commit"));
    if (done && state_step_ > furthest_) {
        furthest_ = state_step_;
        breaks_ = 0;
    }
    return done;
}

Result<void> PortalDriver::recover() {
    for (;;) {
        // Failures seldom come alone: what is known by now is planned for together.
        ECOPIPE_RETURN_IF_ERROR(drain());
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
        ECOPIPE_ASSIGN_OR_RETURN(const bool ready,
                                 configure(std::move(plan), listed(causes, "; ")));
        if (!ready) continue;
        rewound_ = state_step_;
        moves_.recovered_at(state_step_);
        OrderedJson devices = OrderedJson::array();
        for (const auto& failure : failures_)
            if (!failure.device.empty()) devices.push_back(failure.device);
        note_event({{"kind", "lost"},
                    {"devices", std::move(devices)},
                    {"cause", listed(causes, "; ")},
                    {"at_step", failed_step + 1},
                    {"replayed_from_step", state_step_ + 1}},
                   failed_at_);
        log_warn("recovered in {:.0f} ms: {} stages, from {}, {:.0f} bytes moved",
                 to_ms(side_.now() - failed_at_), plan_.stages.size(), step_text(state_step_ + 1),
                 moved_bytes_);
        failures_.clear();
        return {};
    }
}

double PortalDriver::bytes_to_move(const PlanIndex& to) const {
    double sum = 0;
    for (const auto& [layer, bytes] : depot_.layer_bytes())
        for (const std::string& device : to.holders_of(layer))
            if (!index_.holds(device, layer)) sum += bytes;
    return sum;
}

Result<void> PortalDriver::consider_move(std::uint64_t step) {
    if (!planner_ || !moves_.due(step)) return {};
    ECOPIPE_ASSIGN_OR_RETURN(const bool committed, all_committed());
    if (!committed) return {};
    const Instant started = side_.now();
    const MovePolicy::Look look = moves_.take(step);
    auto candidate = planner_->plan(roster_.usable(), moves_.slowness());
    if (!candidate) {
        log_warn("{}, but there is no plan for that: {}", look.reason, candidate.error().message);
        return {};
    }
    const bool leaves = std::any_of(roster_.leaving().begin(), roster_.leaving().end(),
                                    [&](const std::string& device) { return index_.has(device); });
    MoveOffer offer;
    if (!leaves) {
        ECOPIPE_ASSIGN_OR_RETURN(
            const MovePolicy::Weighed weighed,
            moves_.weigh(*planner_, plan_, *candidate, bytes_to_move(PlanIndex(*candidate)),
                         last_step_ > step ? last_step_ - step : 0));
        offer = weighed.offer;
        log_info("{}: the best plan now takes {:.2f} ms a step, the one in force {:.2f}: a move {}",
                 look.reason, offer.candidate_step_ms, offer.current_step_ms,
                 weighed.pays ? "pays" : "does not pay");
        if (!weighed.pays) {
            if (!look.must) return {};
            candidate = plan_;  // the layers stay; who keeps replicas changes
        }
    }
    ECOPIPE_ASSIGN_OR_RETURN(const bool ready, configure(std::move(*candidate), look.reason));
    if (!ready) return recover();
    // Nothing was under way, so nothing is replayed; the caller's step is the one to come.
    if (state_step_ != step) rewound_ = state_step_;
    note_event({{"kind", leaves ? "left" : "moved"},
                {"cause", look.reason},
                {"at_step", step + 1},
                {"current_step_ms", offer.current_step_ms},
                {"candidate_step_ms", offer.candidate_step_ms}},
               started);
    return {};
}

std::optional<std::uint64_t> PortalDriver::take_rewind() {
    return std::exchange(rewound_, std::nullopt);
}

std::vector<ClusterEvent> PortalDriver::take_events() { return std::exchange(events_, {}); }

Result<void> PortalDriver::load(const TensorMap& state, std::uint64_t step) {
    if (machine_.generation() > 0) ECOPIPE_RETURN_IF_ERROR(all_committed());
    rewound_.reset();
    // Another course begins: nothing that anybody keeps of the one before is of it, whatever its
    // steps are called.
    ++course_;
    depot_.replicas().clear();
    furthest_ = step;
    breaks_ = 0;
    ECOPIPE_RETURN_IF_ERROR(depot_.set_base(state, step));
    ECOPIPE_RETURN_IF_ERROR(feed(session_event::BaseSet{step, true}));
    step_ = state_step_ = step;
    ECOPIPE_ASSIGN_OR_RETURN(const bool ready, configure(plan_, ""));
    if (!ready) ECOPIPE_RETURN_IF_ERROR(recover());
    rewound_.reset();  // the state that was to be loaded is the one that all have
    return {};
}

Result<void> PortalDriver::set_base(const TensorMap& state, std::uint64_t step) {
    ECOPIPE_RETURN_IF_ERROR(depot_.set_base(state, step));
    return feed(session_event::BaseSet{step, false});
}

Result<bool> PortalDriver::send_when_room(const std::vector<std::string>& devices, TensorAddress to,
                                          const HostTensor& tensor) {
    while (!channels_->has_room()) {
        ECOPIPE_RETURN_IF_ERROR(check_processes());
        if (auto event = side_.next(side_.now() + kPortalTick))
            ECOPIPE_RETURN_IF_ERROR(handle(*event));
        if (machine_.broken()) return false;
    }
    for (const std::string& device : devices) channels_->send(device, to, tensor);
    return true;
}

Result<void> PortalDriver::start_step(std::uint64_t step, std::vector<Batch> micro_batches,
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
    ECOPIPE_RETURN_IF_ERROR(feed(session_event::BeginWanted{step, false}));
    for (std::size_t m = 0; m < micro_batches.size() && !machine_.broken(); ++m) {
        const Batch batch = std::move(micro_batches[m]);
        ECOPIPE_RETURN_IF_ERROR(send_when_room(index_.input_devices(),
                                               address(TensorKind::kInput, step, m), batch.inputs));
        ECOPIPE_RETURN_IF_ERROR(send_when_room(index_.label_devices(),
                                               address(TensorKind::kLabel, step, m), batch.labels));
    }
    return {};  // a failure shows in finish_step
}

Result<StepOutcome> PortalDriver::finish_step() {
    StepOutcome outcome;
    if (rewound_) return outcome;
    ECOPIPE_ASSIGN_OR_RETURN(const bool finished, pump_or_recover([&] { return done_.has_value(); },
                                                                  kLongWait, step_text(step_ + 1)));
    if (!finished) return outcome;
    outcome.squared_gradient_norms.assign(depot_.model().layers.size(), 0);
    for (const auto& [device, done] : done_->done) {
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
        const Done& done = done_->done[device];
        if (whole_batch) moves_.measured(device, done.busy_ms);
        std::vector<ActionTime> actions = std::move(traced_[device]);
        actions.insert(actions.end(), done.actions.begin(), done.actions.end());
        outcome.devices.push_back({device, done.busy_ms, done.wait_ms, done.peak_bytes,
                                   done.sent_bytes, side_.clock_offset_ns(device),
                                   std::move(actions)});
    }
    outcome.recovery_point = machine_.recovery_point();
    return outcome;
}

Result<void> PortalDriver::commit(double learning_rate, double gradient_scale) {
    ECOPIPE_ASSIGN_OR_RETURN(const bool committed, all_committed());
    if (!committed) return {};
    commit_ = {learning_rate, gradient_scale, false};
    ECOPIPE_RETURN_IF_ERROR(feed(session_event::CommitWanted{}));
    state_step_ = step_ + 1;
    return {};
}

Result<LossTotals> PortalDriver::evaluate(const Dataset& data, int batch, int readers) {
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
    ECOPIPE_RETURN_IF_ERROR(feed(session_event::BeginWanted{step_, true}));
    for (std::uint64_t m = 0; m < reader.count() && !machine_.broken(); ++m) {
        ECOPIPE_ASSIGN_OR_RETURN(const Batch part, reader.take());
        ECOPIPE_RETURN_IF_ERROR(send_when_room(
            index_.label_devices(), address(TensorKind::kEvalLabel, step_, m), part.labels));
        ECOPIPE_RETURN_IF_ERROR(send_when_room(
            index_.input_devices(), address(TensorKind::kEvalInput, step_, m), part.inputs));
    }
    ECOPIPE_ASSIGN_OR_RETURN(const bool finished, pump_or_recover([&] { return done_.has_value(); },
                                                                  kLongWait, "evaluation"));
    if (!finished) return loss;
    for (const auto& [device, done] : done_->done) loss.add(done.loss);
    return loss;
}

Result<TensorMap> PortalDriver::state(bool optimizer_state) {
    ECOPIPE_ASSIGN_OR_RETURN(const bool committed, all_committed());
    if (!committed) return TensorMap();
    depot_.collect();
    fetch_ = {optimizer_state};
    ECOPIPE_RETURN_IF_ERROR(feed(session_event::FetchWanted{}));
    ECOPIPE_ASSIGN_OR_RETURN(
        const bool complete,
        pump_or_recover([&] { return depot_.complete(); }, kLongWait, "collecting the weights"));
    if (complete) return depot_.take_collected();
    depot_.give_up_collecting();
    return TensorMap();
}

void PortalDriver::end(ExitCode code, const std::string& reason) {
    for (const std::string& device : roster_.devices())
        side_.send(device, header(step_), End{static_cast<std::uint8_t>(code), reason});
}

}  // namespace ecopipe
