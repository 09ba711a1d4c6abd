#include "stage_runtime/stage/stage_driver.h"

#include <fmt/format.h>

#include <utility>

#include "core/log.h"
#include "core/overloaded.h"
#include "planner/schedule/plan_file.h"
#include "transport/wire/codec.h"

namespace ecopipe {
namespace {

constexpr auto kLeaveWait = std::chrono::seconds(30);  // for others to take this one's layers
constexpr auto kEndWait = std::chrono::seconds(5);     // for the portal's word after a failure
constexpr std::size_t kReasonMax = 4096;

}  // namespace

StageDriver::StageDriver(StageIdentity identity, Parts parts)
    : identity_(std::move(identity)),
      parts_(std::move(parts)),
      peers_(parts_.channels, identity_.data_port, kStageTick),
      router_(identity_.device, parts_.channels),
      state_(parts_.compute, parts_.channels),
      ties_(identity_.device, parts_.compute, router_),
      sums_(identity_.device, parts_.compute, router_),
      prober_(parts_.channels) {}

void StageDriver::join(std::uint64_t instance) {
    instance_ = instance;
    machine_ = StageMachine();
    parts_.compute.clear();
    router_.clear();
    state_.keeper().clear();
    prober_.clear();
    // Whoever spoke in the life before has been hung up on; what was said then is nobody's now.
    parts_.channels.set_run(0, 0);
    welcomed_ = false;
    join_deadline_.emplace(parts_.now(), from_ms(identity_.join_timeout_s * 1000), kStageTick);
    leaving_.reset();
    giving_up_.reset();
    ended_.reset();
    work_ = {};
    configured_ = false;
    plan_ = {};
    flow_ = {};
    index_ = {};
    peers_.clear();
    commands_.clear();
    next_.reset();
    held_.reset();
}

void StageDriver::end(Result<ExitCode> result, bool taken_for_lost) {
    if (!ended_) ended_ = StageEnd{std::move(result), taken_for_lost};
}

void StageDriver::give_up_on(const Result<void>& done) {
    if (done || giving_up_ || ended_) return;
    const Error& error = done.error();
    if (!welcomed_) return end(tl::unexpected<Error>(error));  // nobody is there to be told
    parts_.portal.send(header(), Failed{static_cast<std::uint8_t>(error.code),
                                        error.message.substr(0, kReasonMax)});
    giving_up_ = GivingUp{error, parts_.now() + kEndWait};
    commands_.clear();
    next_.reset();
    held_.reset();
}

FrameHeader StageDriver::header() const {
    FrameHeader header;
    header.generation = machine_.generation();
    header.step = machine_.step();
    header.micro_batch = micro_batch_.value;
    return header;
}

void StageDriver::on(StageInput input) {
    if (ended_) return;
    std::visit([this](auto& event) { handle(event); }, input);
}

void StageDriver::handle(stage_input::PortalLost& lost) {
    end(tl::unexpected<Error>(giving_up_ ? giving_up_->error : lost.error));
}

void StageDriver::handle(stage_input::PeerAttached& attached) {
    peers_.attached(attached.peer, attached.instance);
    prober_.attached(attached.peer, parts_.now());
    if (!giving_up_ && peers_.stands(attached.peer))
        give_up_on(feed(stage_event::Attached{attached.peer}));
}

void StageDriver::handle(stage_input::RoomMade&) {
    if (!held_ || !parts_.channels.has_room()) return;
    const Held held = std::move(*held_);
    held_.reset();
    router_.send_outputs(routed_step(), TensorKind::kEvalActivation, held.role, held.slice,
                         held.micro_batch, held.outputs);
    give_up_on(finish_action());
}

void StageDriver::handle(Delivery& delivery) {
    if (!giving_up_) give_up_on(deliver(std::move(delivery)));
}

void StageDriver::handle(ControlMessage& message) {
    const auto type = static_cast<MessageType>(message.header.type);
    if (giving_up_) {
        if (type == MessageType::kEnd) end(tl::unexpected<Error>(giving_up_->error));
        return;
    }
    const std::span<const std::byte> body(message.body);
    // The portal itself speaks of the end: nobody needs to be told.
    if (type == MessageType::kRefuse) {
        const auto refuse = decode<Refuse>(body);
        if (!refuse) return end(tl::unexpected<Error>(refuse.error()));
        const auto code = static_cast<ExitCode>(refuse->code);
        return end(fail(code, fmt::format("refused by portal {}: {}", identity_.portal,
                                          printable(refuse->reason))),
                   welcomed_ && code == ExitCode::kUnreachable);
    }
    if (type == MessageType::kEnd) {
        const auto over = decode<End>(body);
        if (!over) return end(tl::unexpected<Error>(over.error()));
        if (over->code != 0)
            return end(fail(static_cast<ExitCode>(over->code),
                            fmt::format("the run ended: {}", over->reason)));
        log_info("the run is over");
        return end(ExitCode::kDone);
    }
    give_up_on(obey_portal(message));
}

Result<void> StageDriver::obey_portal(ControlMessage& message) {
    const std::span<const std::byte> body(message.body);
    const FrameHeader& head = message.header;
    switch (static_cast<MessageType>(head.type)) {
        case MessageType::kWelcome:
            welcomed_ = true;
            parts_.channels.set_run(head.run, instance_);
            log_info("{} was welcomed by {}", identity_.device, identity_.portal);
            return {};
        case MessageType::kConfigure: {
            ECOPIPE_ASSIGN_OR_RETURN(const auto work, decode<Configure>(body));
            return configure(head, work);
        }
        case MessageType::kBegin: {
            ECOPIPE_ASSIGN_OR_RETURN(const auto step, decode<Begin>(body));
            return begin(head, step);
        }
        case MessageType::kCommit: {
            ECOPIPE_ASSIGN_OR_RETURN(const auto commit, decode<Commit>(body));
            ECOPIPE_RETURN_IF_ERROR(
                feed(stage_event::CommitReceived{head.generation, head.step, commit}));
            return deliver_local();
        }
        case MessageType::kFetch: {
            ECOPIPE_ASSIGN_OR_RETURN(const auto fetch, decode<Fetch>(body));
            return feed(stage_event::FetchReceived{head.generation, fetch});
        }
        case MessageType::kProbeLink: {
            ECOPIPE_ASSIGN_OR_RETURN(const auto order, decode<ProbeLink>(body));
            return prober_.start(order, peers_.is_attached(order.peer), parts_.now());
        }
        default:
            log_warn("portal {}: unexpected message {}", identity_.portal, head.type);
            return {};
    }
}

Result<void> StageDriver::configure(const FrameHeader& head, const Configure& work) {
    if (head.generation <= machine_.generation()) return {};  // overtaken by a newer one
    if (!work.cause.empty()) log_warn("{}", printable(work.cause));
    if (next_)
        for (const TensorAddress& address : next_->tensors) router_.drop(address);
    next_.reset();
    held_.reset();
    // What is computed with is one of the kept states too, if it is the one that all go to.
    parts_.compute.discard();
    if (work.course != work_.course)
        state_.keeper().clear();
    else if (machine_.state() == head.step)
        static_cast<void>(state_.keep(head.step));
    state_.keeper().rewind_to(head.step);
    ECOPIPE_ASSIGN_OR_RETURN(plan_, parse_plan(work.plan_json, "plan"));
    index_ = PlanIndex(plan_);
    ECOPIPE_ASSIGN_OR_RETURN(
        flow_, parts_.compute.prepare(work, plan_, index_.stages_of(identity_.device)));
    index_ = PlanIndex(plan_, flow_);
    work_ = work;
    ties_.set_plan(&index_);
    const auto own = index_.stages_of(identity_.device);
    sums_.set_plan(&index_, own.empty() ? TensorCodec::kNone
                                        : plan_.stages[own.front().index()].codec_backward);
    const auto frontier = plan_.frontiers.find(identity_.device);
    memory_.configure(
        frontier == plan_.frontiers.end() ? std::vector<MemoryPoint>() : frontier->second,
        recomputed_on(plan_, identity_.device), predicted_peak_bytes(plan_, identity_.device));
    peers_.configure(work.peers, head.generation, parts_.now());
    router_.set_plan(&index_, &flow_, peers_.with_portal());
    configured_ = true;
    ECOPIPE_RETURN_IF_ERROR(feed(stage_event::Configured{
        head.generation, work.device, slice_roles(index_, flow_, identity_.device),
        peers_.missing(), head.step, work.restore, work.supply, work.keep_snapshots,
        awaited_ties(index_, identity_.device)}));
    // What came whole for an earlier configuration that broke off need not come again.
    for (const LayerTransfer& transfer : work.restore)
        for (auto layer = static_cast<int>(transfer.first_layer);
             layer <= static_cast<int>(transfer.last_layer); ++layer)
            if (state_.keeper().find(head.step, layer) != nullptr)
                ECOPIPE_RETURN_IF_ERROR(
                    feed(stage_event::LayerArrived{head.generation, head.step, layer, false}));
    ECOPIPE_RETURN_IF_ERROR(peers_.dial());
    for (Delivery& delivery : router_.take_early())
        ECOPIPE_RETURN_IF_ERROR(deliver(std::move(delivery)));
    return {};
}

Result<void> StageDriver::begin(const FrameHeader& head, const Begin& step) {
    const int micro_batches = static_cast<int>(step.micro_batch_samples.size());
    const auto place = index_.place(identity_.device);
    ActionList actions;
    if (step.mode == StepMode::kTrain && place) {
        ECOPIPE_ASSIGN_OR_RETURN(const auto lists, plan_actions(plan_, micro_batches));
        actions = lists.at(*place);
    } else {
        const auto stages = index_.stages_of(identity_.device);
        for (int m = 0; m < micro_batches; ++m)
            for (std::size_t slice = 0; slice < stages.size(); ++slice)
                if (index_.owner_of(stages[slice], static_cast<std::uint32_t>(m)) ==
                    identity_.device)
                    actions.push_back({ActionKind::kForward, m, static_cast<int>(slice)});
    }
    return feed(
        stage_event::Begun{head.generation, head.step, step, std::move(actions), sums_.active()});
}

Result<void> StageDriver::deliver(Delivery delivery) {
    if (delivery.address.kind == TensorKind::kProbe) {
        if (const auto result = prober_.take(delivery, parts_.now()))
            parts_.portal.send(header(), *result);
        return {};
    }
    const TensorAddress address = delivery.address;
    const auto generation =
        configured_ ? std::optional(machine_.generation()) : std::optional<std::uint32_t>();
    switch (router_.take(delivery, generation)) {
        case TensorRouter::Taken::kWaits:
            return feed(stage_event::TensorArrived{address});
        case TensorRouter::Taken::kState:
            if (address.generation < machine_.generation() || !state_.arrived(std::move(delivery)))
                return {};
            return feed(stage_event::LayerArrived{address.generation, address.step,
                                                  static_cast<int>(address.producer),
                                                  address.kind == TensorKind::kReplica});
        case TensorRouter::Taken::kEarly:
        case TensorRouter::Taken::kDropped:
            break;
    }
    return {};
}

Result<void> StageDriver::deliver_local() {
    while (auto delivery = router_.next_local())
        ECOPIPE_RETURN_IF_ERROR(deliver(std::move(*delivery)));
    return {};
}

// The machine's answers go before what is still to be carried out: they belong to it.
void StageDriver::prepend(StageCommands commands) {
    for (auto last = commands.rbegin(); last != commands.rend(); ++last)
        commands_.push_front(std::move(*last));
}

Result<void> StageDriver::feed(const StageEvent& event) {
    prepend(machine_.on(event));
    while (!commands_.empty()) {
        StageCommand command = std::move(commands_.front());
        commands_.pop_front();
        ECOPIPE_RETURN_IF_ERROR(carry_out(command));
    }
    return {};
}

Result<void> StageDriver::carry_out(StageCommand& command) {
    return std::visit(
        Overloaded{
            [this](const stage_command::LoadLayer& load) -> Result<void> {
                return state_.load(load.step, load.layer);
            },
            [this](const stage_command::SupplyLayers& supply) -> Result<void> {
                state_.send(supply.transfer.peer, TensorKind::kState, machine_.generation(),
                            supply.step, static_cast<int>(supply.transfer.first_layer),
                            static_cast<int>(supply.transfer.last_layer));
                return {};
            },
            [this](const stage_command::DropSnapshots& old) -> Result<void> {
                state_.keeper().drop_before(old.before);
                return {};
            },
            [this](const stage_command::TakeSnapshot& snapshot) -> Result<void> {
                take_snapshot(snapshot.step);
                return {};
            },
            [this](const stage_command::SendStored& stored) -> Result<void> {
                send_stored(stored.step, stored.layer);
                return {};
            },
            [this](const stage_command::SendReady&) -> Result<void> {
                peers_.ready();
                parts_.portal.send(header(), Ready{parts_.compute.live_bytes()});
                return {};
            },
            [this](const stage_command::StartStep& start) -> Result<void> {
                if (std::exchange(mode_before_, start.begin.mode) != start.begin.mode)
                    parts_.channels.sizes_change();
                report_.begin(parts_.now(),
                              {start.begin.trace, sums_.active(), parts_.channels.sent_bytes()});
                if (start.begin.mode == StepMode::kTrain) follow_memory();
                parts_.compute.begin(start.step, start.begin);
                sums_told_ = !sums_.active() || start.begin.mode != StepMode::kTrain;
                if (!sums_told_)
                    sums_.begin({machine_.generation(), start.step},
                                static_cast<std::uint32_t>(start.begin.micro_batch_samples.size()));
                prepend(sums_if_complete());
                return {};
            },
            [this](stage_command::Run& run) -> Result<void> {
                next_ = std::move(run);  // `work` runs it, when no event waits
                return {};
            },
            [this](const stage_command::DropTensor& drop) -> Result<void> {
                router_.drop(drop.address);
                return {};
            },
            [this](const stage_command::TakeSum& take) -> Result<void> {
                Instant since;
                const auto sum = router_.consume({take.address}, {}, since);
                ECOPIPE_RETURN_IF_ERROR(sums_.take(take.address, sum.front()));
                prepend(sums_if_complete());
                return {};
            },
            [this](const stage_command::SendTiedGradients& send) -> Result<void> {
                ties_.send_gradients({machine_.generation(), send.step});
                return {};
            },
            [this](const stage_command::TakeTiedGradients& take) -> Result<void> {
                ties_.take_gradients(take.tensors);
                return {};
            },
            [this](const stage_command::SendTiedWeights& send) -> Result<void> {
                ties_.send_weights({machine_.generation(), send.step});
                return {};
            },
            [this](const stage_command::TakeTiedWeights& take) -> Result<void> {
                return ties_.take_weights(take.tensors);
            },
            [this](const stage_command::ReportStep&) -> Result<void> {
                report_step();
                prepend(machine_.on(stage_event::StepReported{}));
                return {};
            },
            [this](const stage_command::ApplyUpdate& update) -> Result<void> {
                const Instant started = parts_.now();
                parts_.compute.commit(update.commit);
                update_ms_ = to_ms(parts_.now() - started);
                prepend(machine_.on(stage_event::UpdateFinished{}));
                return {};
            },
            [this](const stage_command::SendCommitted& committed) -> Result<void> {
                FrameHeader head = header();
                head.step = committed.step;
                parts_.portal.send(head, Committed{update_ms_});
                return {};
            },
            [this](const stage_command::SendState& fetch) -> Result<void> {
                send_state(fetch.optimizer_state);
                return {};
            },
            [](const stage_command::ProtocolError& error) -> Result<void> {
                return fail(ExitCode::kRunFailed,
                            "unexpected message from the portal: " + error.reason);
            },
        },
        command);
}

std::optional<StageDriver::NextAction> StageDriver::next_action() const {
    if (!next_ || giving_up_ || ended_) return std::nullopt;
    return NextAction{machine_.step(), {static_cast<std::uint32_t>(next_->action.micro_batch)}};
}

void StageDriver::work() {
    if (!next_action()) return;
    const stage_command::Run run = std::move(*next_);
    next_.reset();
    give_up_on(run_action(run));
}

Result<void> StageDriver::run_action(const stage_command::Run& run) {
    const Action& action = run.action;
    const SliceRole& role = machine_.slices()[static_cast<std::size_t>(action.slice)];
    const SliceId slice{static_cast<std::uint32_t>(action.slice)};
    const bool trains = machine_.mode() == StepMode::kTrain;
    micro_batch_ = {static_cast<std::uint32_t>(action.micro_batch)};
    ComputeJob job{action, machine_.mode(), {}, {}, {}};
    const bool shared = trains && sums_.active();
    Result<void> exchanged;
    if (shared)
        job.layer_done = [&](int layer) {
            if (exchanged) exchanged = exchange_sums(layer);
        };
    job.tensors = router_.consume(run.tensors, run.kept, job.complete_since);
    if (action.kind == ActionKind::kForward && role.last) {
        job.labels = std::move(job.tensors.back());
        job.tensors.pop_back();
    }
    ECOPIPE_ASSIGN_OR_RETURN(ComputeResult result, parts_.compute.run(std::move(job)));
    ECOPIPE_RETURN_IF_ERROR(exchanged);
    report_.ran(action, result.started, result.ended);
    if (!trains && role.last) report_.loss(micro_batch_, result.loss);
    if (action.kind != ActionKind::kForward) {
        if (role.sends_gradient && action.kind != ActionKind::kWeightGradient)
            router_.send_gradients(routed_step(), role, slice, micro_batch_,
                                   std::move(result.tensors));
    } else if (!role.last && trains) {
        router_.send_outputs(routed_step(), TensorKind::kActivation, role, slice, micro_batch_,
                             std::move(result.tensors));
    } else if (!role.last && !trains) {
        // Evaluation streams: a faster stage waits instead of queueing the whole test split.
        held_ = Held{role, slice, micro_batch_, std::move(result.tensors)};
        stage_input::RoomMade now;
        handle(now);
        return {};
    }
    if (shared) {
        sums_.action_done(action);
        prepend(sums_if_complete());
    }
    return finish_action();
}

Result<void> StageDriver::exchange_sums(int layer) {
    sums_.layer_done(micro_batch_.value, layer);
    while (parts_.next_sum) {
        auto sum = parts_.next_sum();
        if (!sum) break;
        ECOPIPE_RETURN_IF_ERROR(deliver(std::move(*sum)));
    }
    return {};
}

StageCommands StageDriver::sums_if_complete() {
    if (sums_told_ || !sums_.complete()) return {};
    sums_told_ = true;
    return machine_.on(stage_event::SumsComplete{});
}

Result<void> StageDriver::finish_action() {
    ECOPIPE_RETURN_IF_ERROR(feed(stage_event::ActionFinished{}));
    return deliver_local();
}

void StageDriver::follow_memory() {
    if (!memory_.active()) return;
    const auto move =
        memory_.next(parts_.memory_budget ? parts_.memory_budget() : std::optional<MemoryBudget>());
    if (!move) return;
    parts_.compute.recompute(move->recomputed);
    parts_.channels.sizes_change();  // what was received into before is given back
    parts_.portal.send(header(),
                       MemoryMoved{move->budget_bytes, move->needed_bytes, move->recompute_ms});
}

void StageDriver::report_step() {
    if (machine_.mode() == StepMode::kTrain) report_.take(parts_.compute.finish_step());
    const MemoryByUse peak = parts_.compute.take_peak_memory();
    if (machine_.mode() == StepMode::kTrain) memory_.measured(peak.total());
    StepReport::Told told = report_.finish(parts_.now(), peak, parts_.channels.sent_bytes());
    const FrameHeader head = header();
    for (Trace& piece : told.before) parts_.portal.send(head, std::move(piece));
    parts_.portal.send(head, std::move(told.done));
}

void StageDriver::send_stored(std::uint64_t step, int layer) {
    FrameHeader head = header();
    head.step = step;
    const auto number = static_cast<std::uint32_t>(layer);
    parts_.portal.send(head, Stored{number, number});
}

void StageDriver::take_snapshot(std::uint64_t step) {
    for (const int layer : state_.keep(step)) {
        send_stored(step, layer);
        if (!work_.buddy.empty())
            state_.send(work_.buddy, TensorKind::kReplica, machine_.generation(), step, layer,
                        layer);
    }
}

void StageDriver::send_state(bool optimizer_state) {
    std::uint32_t sent = 0;
    const auto stages = index_.stages_of(identity_.device);
    for (std::uint32_t slice = 0; slice < stages.size(); ++slice) {
        // All holders have the same.
        if (index_.devices_of(stages[slice]).front() != identity_.device) continue;
        for (NamedTensor& entry : parts_.compute.state({slice}, optimizer_state)) {
            TensorAddress address;
            address.generation = machine_.generation();
            address.step = machine_.step();
            address.kind = TensorKind::kState;
            address.slice = static_cast<std::uint16_t>(slice);
            address.producer = static_cast<std::uint32_t>(index_.layers_of(stages[slice]).first);
            address.name = entry.name;
            parts_.channels.send(kPortalPeer, std::move(address), std::move(entry.tensor));
            ++sent;
        }
    }
    parts_.portal.send(header(), Fetched{sent, parts_.compute.take_peak_memory()});
}

void StageDriver::tick(std::uint64_t progress) {
    if (ended_) return;
    const Instant now = parts_.now();
    if (giving_up_) {
        if (now >= giving_up_->until) end(tl::unexpected<Error>(giving_up_->error));
        return;
    }
    if (!welcomed_ && join_deadline_ && join_deadline_->over(now))
        return end(
            fail(ExitCode::kUnreachable, fmt::format("portal {} did not answer within {} s",
                                                     identity_.portal, identity_.join_timeout_s)));
    give_up_on(check_loading(progress));
}

// Which of two devices that do not reach one another goes on, the portal alone can say: until it
// does this one waits.
Result<void> StageDriver::check_loading(std::uint64_t progress) {
    const auto overdue = peers_.look(parts_.now(), progress);
    if (!overdue) return {};
    const std::string problem =
        overdue->problem.empty() ? machine_.waiting_for() : overdue->problem;
    if (overdue->unreached.empty())
        return fail(ExitCode::kUnreachable,
                    fmt::format("not ready, and nothing has come for {} s: {}",
                                StagePeers::kLoadTimeout.count(), problem));
    log_warn("{}", problem);
    parts_.portal.send(header(), Unreached{overdue->unreached});
    return {};
}

void StageDriver::leave(const std::string& signal) {
    if (ended_ || giving_up_) return;
    const Error left{ExitCode::kUnreachable, fmt::format("left on {}", signal)};
    if (!welcomed_) return end(tl::unexpected<Error>(left));
    if (!leaving_) {
        leaving_.emplace(parts_.now(), kLeaveWait, kStageTick);
        log_info("{} hands its layers over and leaves", identity_.device);
        parts_.portal.send(header(), Leave{left.message});
    }
    if (leaving_->over(parts_.now())) give_up_on(tl::unexpected<Error>(left));
}

}  // namespace ecopipe
