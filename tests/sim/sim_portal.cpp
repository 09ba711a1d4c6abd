#include <algorithm>
#include <cstring>

#include "domain/plan_index.h"
#include "orchestrator/evaluation_reader.h"
#include "planner/schedule/plan_file.h"
#include "tests/sim/sim_cluster.h"
#include "tests/support/small_training.h"

namespace ecopipe::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
constexpr auto kTick = milliseconds(100);
constexpr auto kGatherFor = seconds(3);
constexpr auto kAttachEvery = milliseconds(200);
constexpr std::uint64_t kSnapshotEvery = 2;
constexpr const char* kNode = kPortalPeer;

LivenessLimits limits() {
    LivenessLimits limits;
    limits.silence_min = milliseconds(800);
    limits.silence_max = milliseconds(3000);
    limits.action_min = milliseconds(1000);
    limits.stall_min = milliseconds(2000);
    return limits;
}

// Layers as even as they go, over at most one device a layer.
Plan even_plan(std::vector<std::string> devices) {
    if (devices.size() > static_cast<std::size_t>(kLayers)) devices.resize(kLayers);
    const auto count = static_cast<int>(devices.size());
    Plan plan;
    plan.model = "toy";
    plan.batch = plan.micro_batches = test::SmallTraining::kMicroBatches;
    plan.schedule = "1f1b";
    for (int s = 0; s < count; ++s) {
        StagePlan stage;
        stage.device = devices[static_cast<std::size_t>(s)];
        stage.first_layer = s * kLayers / count;
        stage.last_layer = (s + 1) * kLayers / count - 1;
        stage.in_flight = std::min(plan.micro_batches, 2 * (count - s) - 1);
        plan.stages.push_back(stage);
    }
    return plan;
}

}  // namespace

SimPortal::SimPortal(World& world, std::set<std::string> devices)
    : world_(world), devices_(std::move(devices)), liveness_(limits()) {}

void SimPortal::start() {
    world_.net.start(kNode, [this](const SimMessage& message) { on_message(message); });
    run_ = world_.net.rng().next() | 1;
    gather_until_ = world_.net.now() + kGatherFor;
    tick();
}

template <class Message>
void SimPortal::send(const std::string& to, FrameHeader head, const Message& message,
                     std::string payload) {
    head.run = run_;
    head.type = static_cast<std::uint16_t>(Message::kType);
    const auto member = members_.find(to);
    // Control answers the member's connection; data come from the portal's own socket.
    const bool data = head.type >= static_cast<std::uint16_t>(MessageType::kAttach);
    if (!data && member == members_.end()) return;
    SimMessage out{
        kNode, data ? run_ : member->second.connection, {}, encode(message), std::move(payload)};
    const auto sealed = seal(head, out.body, out.payload.size());
    out.header.assign(reinterpret_cast<const char*>(sealed.data()), sealed.size());
    world_.net.send(to, std::move(out));
}

FrameHeader SimPortal::header(std::uint64_t step) const {
    FrameHeader head;
    head.generation = machine_.generation();
    head.step = step;
    return head;
}

void SimPortal::progress() { liveness_.work_due(!gathering_, world_.net.now()); }

void SimPortal::tick() {
    const Instant now = world_.net.now();
    for (const auto& [device, member] : members_)
        send(device, {}, Ping{now.time_since_epoch().count()});
    for (const Suspect& suspect : liveness_.suspects(now)) lose(suspect.device, suspect.how);
    if (const auto stall = liveness_.stalled(now))
        absorb(machine_.on(session_event::Stalled{"nothing moved"}));
    const bool all_here = members_.size() == devices_.size();
    if (gathering_ && !members_.empty() && (all_here || now > gather_until_)) configure("");
    world_.net.at(now + kTick, kNode, [this] { tick(); });
}

void SimPortal::lose(const std::string& device, const std::string& how) {
    if (members_.erase(device) == 0) return;
    attached_.erase(device);
    liveness_.left(device);
    absorb(machine_.on(session_event::DeviceLost{device, how}));
}

void SimPortal::on_hello(const SimMessage& message) {
    const auto hello = decode<Hello>(std::as_bytes(std::span(message.body)));
    if (!hello || !devices_.contains(hello->device)) return;
    const Welcome welcome{100, 3000};
    if (const auto known = members_.find(hello->device); known != members_.end()) {
        if (known->second.instance == hello->instance) send(hello->device, {}, welcome);
        // Another process under that name: the one before it is gone, as its silence will show.
        return;
    }
    members_[hello->device] = {message.connection, hello->instance, false};
    liveness_.joined(hello->device, world_.net.now());
    absorb(machine_.on(session_event::DeviceJoined{hello->device}));
    send(hello->device, {}, welcome);
    if (!gathering_) member_change_ = true;
}

void SimPortal::on_message(const SimMessage& message) {
    const auto head = message.open();
    if (!head) return;
    const auto type = static_cast<MessageType>(head->type);
    if (type == MessageType::kHello) {
        on_hello(message);
        return;
    }
    if (head->run != run_) return;
    if (type == MessageType::kAttached || type == MessageType::kTensorChunk) {
        on_data(*head, message);
        return;
    }
    const auto member = members_.find(message.from);
    if (member == members_.end() || member->second.connection != message.connection) {
        // It was taken for lost: it may join again.
        FrameHeader refusal;
        refusal.run = run_;
        refusal.type = static_cast<std::uint16_t>(MessageType::kRefuse);
        SimMessage out{kNode, message.connection, {}, encode(Refuse{4, "taken for lost"}), {}};
        const auto sealed = seal(refusal, out.body, 0);
        out.header.assign(reinterpret_cast<const char*>(sealed.data()), sealed.size());
        world_.net.send(message.from, std::move(out));
        return;
    }
    const std::string device = message.from;
    const auto body = std::as_bytes(std::span(message.body));
    const std::uint32_t generation = world_.mistake == Mistake::kOldGenerationAccepted
                                         ? machine_.generation()
                                         : head->generation;
    liveness_.heard(device, world_.net.now());
    switch (type) {
        case MessageType::kPong:
            if (const auto pong = decode<Pong>(body))
                liveness_.pong(device, Instant(Duration(pong->echo_ns)), world_.net.now(),
                               pong->local_ns,
                               {pong->progress, Duration(pong->busy_ns), Duration(pong->longest_ns),
                                pong->step, pong->micro_batch});
            break;
        case MessageType::kReady:
            absorb(machine_.on(session_event::ReadyReceived{device, generation}));
            break;
        case MessageType::kDone:
            if (const auto done = decode<Done>(body)) {
                SessionOutcomes outcomes =
                    machine_.on(session_event::DoneReceived{device, generation, head->step, *done});
                if (world_.mistake == Mistake::kCommitWithoutAllAcks)
                    for (const auto& [other, unused] : members_) {
                        auto more = machine_.on(
                            session_event::DoneReceived{other, generation, head->step, Done{}});
                        outcomes.insert(outcomes.end(), more.begin(), more.end());
                    }
                absorb(std::move(outcomes));
            }
            break;
        case MessageType::kCommitted:
            absorb(machine_.on(session_event::CommittedReceived{device, generation, head->step}));
            break;
        case MessageType::kStored:
            if (const auto stored = decode<Stored>(body))
                absorb(machine_.on(
                    session_event::StoredReceived{device, generation, head->step, *stored}));
            break;
        case MessageType::kFetched:
            if (const auto fetched = decode<Fetched>(body))
                absorb(machine_.on(
                    session_event::FetchedReceived{device, generation, fetched->state_tensors}));
            break;
        case MessageType::kLeave:
            member->second.leaving = true;
            member_change_ = true;
            break;
        default:
            break;
    }
}

void SimPortal::on_data(const FrameHeader& head, const SimMessage& message) {
    const auto body = std::as_bytes(std::span(message.body));
    const auto member = members_.find(message.from);
    if (member == members_.end()) return;
    if (static_cast<MessageType>(head.type) == MessageType::kAttached) {
        if (const auto answer = decode<Attached>(body);
            answer && answer->instance == member->second.instance) {
            attached_[message.from] = answer->instance;
            supply_attached();
        }
        return;
    }
    const auto chunk = decode<TensorChunk>(body);
    if (!chunk || head.generation != machine_.generation() ||
        attached_[message.from] != message.connection)
        return;
    HostTensor tensor = HostTensor::allocate(chunk->dtype, chunk->shape);
    std::memcpy(tensor.data(), message.payload.data(), tensor.bytes());
    if (chunk->kind == TensorKind::kReplica) return;  // a lone device's: the base serves it here
    fetched_[static_cast<int>(chunk->producer)][chunk->output] = {chunk->name, std::move(tensor)};
}

void SimPortal::dial(const std::string& device, std::uint64_t instance) {
    const auto member = members_.find(device);
    if (member == members_.end() || member->second.instance != instance ||
        attached_[device] == instance)
        return;
    send(device, {}, Attach{kPortalPeer, run_});
    world_.net.at(world_.net.now() + kAttachEvery, kNode,
                  [this, device, instance] { dial(device, instance); });
}

void SimPortal::configure(const std::string& cause) {
    ready_.reset();
    std::vector<std::string> devices;
    for (const auto& [device, member] : members_)
        if (!member.leaving) devices.push_back(device);
    if (devices.empty()) {
        gathering_ = true;  // until somebody joins
        progress();
        return;
    }
    member_change_ = gathering_ = false;
    progress();
    plan_ = even_plan(devices);
    ReplicaPlan replicas;
    const auto count = plan_.stages.size();
    if (count > 1) {
        replicas.every = kSnapshotEvery;
        for (std::size_t s = 0; s < count; ++s)
            replicas.buddies[plan_.stages[s].device] = plan_.stages[(s + 1) % count].device;
    }
    absorb(machine_.on(session_event::ConfigureWanted{plan_, replicas, cause}));
}

void SimPortal::supply_attached() {
    if (!to_supply_) return;
    std::erase_if(to_supply_->supply, [&](const LayerTransfer& transfer) {
        const auto member = members_.find(transfer.peer);
        if (member == members_.end() || attached_[transfer.peer] != member->second.instance)
            return false;
        for (auto layer = static_cast<int>(transfer.first_layer);
             layer <= static_cast<int>(transfer.last_layer); ++layer) {
            if (layer == kStatelessLayer) continue;
            const TensorMap tensors = tensors_of(base_.at(layer));
            for (std::size_t i = 0; i < tensors.size(); ++i) {
                const TensorChunk chunk{TensorKind::kState,
                                        static_cast<std::uint32_t>(layer),
                                        static_cast<std::uint16_t>(i),
                                        2,
                                        false,
                                        tensors[i].name,
                                        DType::kI64,
                                        {1},
                                        0};
                const auto& tensor = tensors[i].tensor;
                send(transfer.peer, header(to_supply_->step), chunk,
                     std::string(reinterpret_cast<const char*>(tensor.data()), tensor.bytes()));
            }
        }
        return true;
    });
}

void SimPortal::absorb(SessionOutcomes outcomes) {
    for (SessionOutcome& outcome : outcomes) {
        if (auto* work = std::get_if<session_outcome::SendConfigure>(&outcome)) {
            Configure out;
            out.plan_json = plan_text(plan_);
            out.device = work->device;
            out.model = "toy";
            out.input_shape = {1};
            out.restore = work->restore;
            out.supply = work->supply;
            out.keep_snapshots = work->keep_snapshots;
            out.buddy = work->buddy;
            out.cause = work->cause;
            for (const std::string& peer : work->peers)  // the one whose name comes first dials
                if (const auto member = members_.find(peer); member != members_.end())
                    out.peers.push_back(
                        {peer, "tcp://sim:1", work->device < peer, member->second.instance});
            world_.trace("generation {}: {} goes to state {}", machine_.generation(), work->device,
                         work->restore_step);
            send(work->device, header(work->restore_step), out);
            const auto member = members_.find(work->device);
            if (member != members_.end()) {
                send(work->device, {}, Attach{kPortalPeer, run_});
                dial(work->device, member->second.instance);
            }
        } else if (auto* supply = std::get_if<session_outcome::SupplyFromPortal>(&outcome)) {
            if (supply->step != base_step_) world_.violate("the base is of another step");
            to_supply_ = std::move(*supply);
            supply_attached();
        } else if (auto* begin = std::get_if<session_outcome::SendBegin>(&outcome)) {
            Begin out;
            out.mode = begin->evaluation ? StepMode::kEvaluate : StepMode::kTrain;
            out.micro_batch_samples = parts_;
            out.recovery_point = begin->recovery_point;
            for (const std::string& device : begin->devices) send(device, header(begin->step), out);
        } else if (auto* commit = std::get_if<session_outcome::SendCommit>(&outcome)) {
            for (const std::string& device : commit->devices)
                send(device, header(commit->step), Commit{1, 1, commit->snapshot});
        } else if (auto* fetch = std::get_if<session_outcome::SendFetch>(&outcome)) {
            for (const std::string& device : fetch->devices)
                send(device, header(step_), Fetch{true});
        } else if (auto* ready = std::get_if<session_outcome::AllReady>(&outcome)) {
            step_ = ready->step;
            ready_ = ready->step;
            to_supply_.reset();
            if (std::exchange(broken_, false)) rewound_ = ready->step;
            const PlanIndex index(plan_);
            std::vector<std::string> left;
            for (const auto& [device, member] : members_)
                if (member.leaving && !index.has(device)) left.push_back(device);
            for (const std::string& device : left) {
                send(device, header(ready->step), End{0, "handed over"});
                lose(device, "it left");
            }
        } else if (auto* done = std::get_if<session_outcome::AllDone>(&outcome)) {
            done_ = std::move(*done);
            progress();
        } else if (std::holds_alternative<session_outcome::AllCommitted>(outcome)) {
            progress();
        } else if (auto* fetched = std::get_if<session_outcome::AllFetched>(&outcome)) {
            fetched_count_ = fetched->state_tensors;
        } else if (auto* broken = std::get_if<session_outcome::Broken>(&outcome)) {
            world_.trace("{}", broken->error.message);
            ++recoveries_;
            broken_ = true;
            // One failure seldom comes alone: the next tick plans over those who are left.
            if (!configure_soon_) {
                configure_soon_ = true;
                world_.net.at(world_.net.now(), kNode, [this, cause = broken->error.message] {
                    configure_soon_ = false;
                    if (machine_.broken()) configure(cause);
                });
            }
        } else if (std::holds_alternative<session_outcome::Fatal>(outcome)) {
            world_.violate("gave up");
        } else if (std::holds_alternative<session_outcome::ReplicasLost>(outcome)) {
            member_change_ = true;
        }
    }
}

void SimPortal::feed(bool evaluation, std::uint32_t micro_batch, const Batch& batch) {
    const auto send_to = [&](const std::string& device, TensorKind kind, std::uint64_t value) {
        FrameHeader head = header(step_);
        head.micro_batch = micro_batch;
        const TensorChunk chunk{kind, 0, 0, 1, false, "", DType::kI64, {1}, 0};
        send(device, head, chunk, std::string(reinterpret_cast<const char*>(&value), sizeof value));
    };
    send_to(plan_.stages.front().device, evaluation ? TensorKind::kEvalInput : TensorKind::kInput,
            digest(batch.inputs));
    send_to(plan_.stages.back().device, evaluation ? TensorKind::kEvalLabel : TensorKind::kLabel,
            digest(batch.labels));
}

Result<bool> SimPortal::run_until(const std::function<bool()>& done) {
    for (;;) {
        if (!world_.violations.empty())
            return fail(ExitCode::kRunFailed, world_.violations.front());
        if (!world_.net.runs(kNode)) return fail(ExitCode::kUnreachable, "the portal was killed");
        if (rewound_) return false;
        if (!broken_ && machine_.ready() && done()) return true;
        if (!world_.net.advance(world_.end)) {
            world_.violate(fmt::format("nothing moves any more, at step {}: waiting for {}", step_,
                                       machine_.waiting_for()));
        }
    }
}

Result<bool> SimPortal::all_committed() {
    return run_until([this] { return machine_.all_committed(); });
}

Result<bool> SimPortal::move_if_due(std::uint64_t step) {
    if (!member_change_) return true;
    ECOPIPE_ASSIGN_OR_RETURN(const bool committed, all_committed());
    if (!committed) return false;
    configure("devices came or go");
    ECOPIPE_ASSIGN_OR_RETURN(const bool ready, run_until([this] { return ready_.has_value(); }));
    if (ready && *ready_ != step) rewound_ = *ready_;
    return ready && !rewound_;
}

Result<void> SimPortal::load(const TensorMap& state, std::uint64_t step) {
    base_ = *states_in(state);
    base_step_ = step_ = step;
    absorb(machine_.on(session_event::BaseSet{step, true}));
    const auto ready = run_until([this] { return ready_.has_value(); });
    if (!ready) return tl::unexpected<Error>(ready.error());
    rewound_.reset();  // to the state that was to be loaded
    return {};
}

Result<void> SimPortal::start_step(std::uint64_t step, std::vector<Batch> micro_batches, double,
                                   bool) {
    ECOPIPE_ASSIGN_OR_RETURN(const bool on, move_if_due(step));
    if (!on) return {};
    if (step != step_) world_.violate(fmt::format("step {} after state {}", step, step_));
    parts_.clear();
    for (const Batch& batch : micro_batches)
        parts_.push_back(static_cast<std::uint32_t>(batch.labels.shape()[0]));
    done_.reset();
    progress();
    absorb(machine_.on(session_event::BeginWanted{step, false}));
    for (std::uint32_t m = 0; m < micro_batches.size(); ++m) feed(false, m, micro_batches[m]);
    return {};
}

Result<StepOutcome> SimPortal::finish_step() {
    StepOutcome outcome;
    ECOPIPE_ASSIGN_OR_RETURN(const bool on, run_until([this] { return done_.has_value(); }));
    if (!on) return outcome;
    for (const auto& [device, done] : done_->done) outcome.loss.add(done.loss);
    return outcome;
}

Result<void> SimPortal::commit(double, double) {
    ECOPIPE_ASSIGN_OR_RETURN(const bool on, all_committed());
    if (!on) return {};
    absorb(machine_.on(session_event::CommitWanted{}));
    ++step_;
    return {};
}

Result<LossTotals> SimPortal::evaluate(const Dataset& data, int batch, int readers) {
    LossTotals loss;
    ECOPIPE_ASSIGN_OR_RETURN(const bool committed, all_committed());
    if (!committed) return loss;
    EvaluationReader reader(data, batch, readers);
    parts_.clear();
    for (std::uint64_t m = 0; m < reader.count(); ++m)
        parts_.push_back(static_cast<std::uint32_t>(reader.samples(m)));
    done_.reset();
    progress();
    absorb(machine_.on(session_event::BeginWanted{step_, true}));
    for (std::uint64_t m = 0; m < reader.count(); ++m) {
        ECOPIPE_ASSIGN_OR_RETURN(const Batch part, reader.take());
        feed(true, static_cast<std::uint32_t>(m), part);
    }
    ECOPIPE_ASSIGN_OR_RETURN(const bool on, run_until([this] { return done_.has_value(); }));
    if (!on) return loss;
    for (const auto& [device, done] : done_->done) loss.add(done.loss);
    return loss;
}

Result<TensorMap> SimPortal::state(bool) {
    ECOPIPE_ASSIGN_OR_RETURN(const bool committed, all_committed());
    if (!committed) return TensorMap();
    fetched_.clear();
    fetched_count_.reset();
    progress();
    absorb(machine_.on(session_event::FetchWanted{}));
    ECOPIPE_ASSIGN_OR_RETURN(const bool on, run_until([this] {
                                 std::size_t count = 0;
                                 for (const auto& [layer, tensors] : fetched_)
                                     count += tensors.size();
                                 return fetched_count_ && count >= *fetched_count_;
                             }));
    if (!on) return TensorMap();
    ToyStates states;
    for (const auto& [layer, tensors] : fetched_) {
        TensorMap list;
        for (const auto& [index, tensor] : tensors) list.push_back(tensor);
        const std::uint64_t* state = state_in(list);
        if (state == nullptr || !world_.is_state(step_, layer, *state))
            world_.violate("a checkpoint of mixed states");
        else
            states[layer] = *state;
    }
    if (states.size() != kStatefulLayers.size()) world_.violate("a checkpoint with holes");
    return checkpoint_of(states);
}

Result<void> SimPortal::set_base(const TensorMap& state, std::uint64_t step) {
    base_ = *states_in(state);
    base_step_ = step;
    absorb(machine_.on(session_event::BaseSet{step, false}));
    return {};
}

}  // namespace ecopipe::sim
