#include <algorithm>
#include <cstring>

#include "tests/sim/sim_cluster.h"

namespace ecopipe::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
constexpr auto kTick = milliseconds(100);
constexpr auto kGatherFor = seconds(3);
constexpr auto kAttachEvery = milliseconds(200);
constexpr std::uint64_t kCheckpointEvery = 10;
constexpr std::uint64_t kEvaluateEvery = 6;
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
    plan.batch = plan.micro_batches = kMicroBatches;
    plan.schedule = "1f1b";
    for (int s = 0; s < count; ++s) {
        StagePlan stage;
        stage.device = devices[static_cast<std::size_t>(s)];
        stage.first_layer = s * kLayers / count;
        stage.last_layer = (s + 1) * kLayers / count - 1;
        stage.in_flight = std::min(kMicroBatches, 2 * (count - s) - 1);
        plan.stages.push_back(stage);
    }
    return plan;
}

}  // namespace

SimPortal::SimPortal(World& world, Disk& disk, std::set<std::string> devices)
    : world_(world), disk_(disk), devices_(std::move(devices)), liveness_(limits()) {}

void SimPortal::start() {
    world_.net.start(kNode, [this](const SimMessage& message) { on_message(message); });
    run_ = world_.net.rng().next() | 1;
    gather_until_ = world_.net.now() + kGatherFor;
    static_cast<void>(machine_.on(session_event::BaseSet{disk_.step}));
    cursor_ = disk_.step;
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

void SimPortal::progress() {
    const bool due = doing_ != Doing::kGather;
    liveness_.work_due(due, world_.net.now());
}

void SimPortal::tick() {
    const Instant now = world_.net.now();
    for (const auto& [device, member] : members_)
        send(device, {}, Ping{now.time_since_epoch().count()});
    for (const Suspect& suspect : liveness_.suspects(now)) lose(suspect.device, suspect.how);
    if (const auto stall = liveness_.stalled(now))
        absorb(machine_.on(session_event::Stalled{"nothing moved"}));
    const bool all_here = members_.size() == devices_.size();
    if (doing_ == Doing::kGather && !members_.empty() && (all_here || now > gather_until_))
        configure("");
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
    if (doing_ != Doing::kGather) member_change_ = true;
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
                               {pong->actions_finished, Duration(pong->busy_ns),
                                Duration(pong->longest_ns), pong->step, pong->micro_batch});
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
    go_on();
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
    go_on();
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
    std::vector<std::string> devices;
    for (const auto& [device, member] : members_)
        if (!member.leaving) devices.push_back(device);
    if (devices.empty()) {
        doing_ = Doing::kGather;  // until somebody joins
        progress();
        return;
    }
    member_change_ = false;
    doing_ = Doing::kWait;
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
            const TensorMap tensors =
                tensors_of(disk_.states.empty() ? initial_state(layer) : disk_.states.at(layer));
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
            if (supply->step != disk_.step) world_.violate("the base is of another step");
            to_supply_ = std::move(*supply);
            supply_attached();
        } else if (auto* begin = std::get_if<session_outcome::SendBegin>(&outcome)) {
            Begin out;
            out.mode = begin->evaluation ? StepMode::kEvaluate : StepMode::kTrain;
            out.micro_batch_samples.assign(kMicroBatches, 1);
            out.recovery_point = begin->recovery_point;
            for (const std::string& device : begin->devices) send(device, header(begin->step), out);
        } else if (auto* commit = std::get_if<session_outcome::SendCommit>(&outcome)) {
            for (const std::string& device : commit->devices)
                send(device, header(commit->step), Commit{1, 1, commit->snapshot});
        } else if (auto* fetch = std::get_if<session_outcome::SendFetch>(&outcome)) {
            for (const std::string& device : fetch->devices)
                send(device, header(cursor_), Fetch{true});
        } else if (auto* ready = std::get_if<session_outcome::AllReady>(&outcome)) {
            std::vector<std::string> left;
            for (const auto& [device, member] : members_)
                if (member.leaving) left.push_back(device);
            for (const std::string& device : left) {
                send(device, header(ready->step), End{0, "handed over"});
                lose(device, "it left");
            }
            cursor_ = ready->step;
            to_supply_.reset();
            begin_next_ = true;
        } else if (std::holds_alternative<session_outcome::AllDone>(outcome)) {
            step_done_ = true;
            progress();
        } else if (std::holds_alternative<session_outcome::AllCommitted>(outcome)) {
            progress();
        } else if (auto* fetched = std::get_if<session_outcome::AllFetched>(&outcome)) {
            fetched_count_ = fetched->state_tensors;
        } else if (auto* broken = std::get_if<session_outcome::Broken>(&outcome)) {
            world_.trace("{}", broken->error.message);
            ++recoveries_;
            step_done_ = false;
            begin_next_ = false;
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

void SimPortal::begin(bool evaluation) {
    doing_ = evaluation ? Doing::kEvaluate : Doing::kStep;
    step_done_ = false;
    progress();
    absorb(machine_.on(session_event::BeginWanted{cursor_, evaluation}));
    for (std::uint32_t m = 0; m < kMicroBatches; ++m) {
        const auto feed = [&](const std::string& to, TensorKind kind, std::uint64_t value) {
            FrameHeader head = header(cursor_);
            head.micro_batch = m;
            const TensorChunk chunk{kind, 0, 0, 1, false, "", DType::kI64, {1}, 0};
            send(to, head, chunk, std::string(reinterpret_cast<const char*>(&value), sizeof value));
        };
        feed(plan_.stages.front().device, evaluation ? TensorKind::kEvalInput : TensorKind::kInput,
             input_of(cursor_, m));
        feed(plan_.stages.back().device, evaluation ? TensorKind::kEvalLabel : TensorKind::kLabel,
             label_of(cursor_, m));
    }
}

// What the trainer does between the machine's outcomes.
void SimPortal::go_on() {
    if (!machine_.ready() || disk_.finished) return;
    if (doing_ == Doing::kStep && step_done_ && machine_.all_committed()) {
        absorb(machine_.on(session_event::CommitWanted{}));
        step_done_ = false;
        if (disk_.recorded.empty() || disk_.recorded.back() < cursor_)
            disk_.recorded.push_back(cursor_);
        ++cursor_;
        begin_next_ = true;
        doing_ = Doing::kWait;
    } else if (doing_ == Doing::kEvaluate && step_done_) {
        evaluated_ = cursor_;
        begin_next_ = true;
        doing_ = Doing::kWait;
    } else if ((doing_ == Doing::kCheckpoint || doing_ == Doing::kFetch) && fetched_count_) {
        std::size_t count = 0;
        for (const auto& [layer, tensors] : fetched_) count += tensors.size();
        if (count < *fetched_count_) return;
        std::map<int, std::uint64_t> states;
        for (const auto& [layer, tensors] : fetched_) {
            TensorMap list;
            for (const auto& [index, tensor] : tensors) list.push_back(tensor);
            const std::uint64_t* state = state_in(list);
            if (state == nullptr || *state != world_.reference.at(cursor_).at(layer))
                world_.violate("a checkpoint of mixed states");
            else
                states[layer] = *state;
        }
        if (states.size() != kStatefulLayers.size()) world_.violate("a checkpoint with holes");
        disk_.step = cursor_;
        disk_.states = std::move(states);
        if (cursor_ == world_.steps) {
            disk_.finished = true;
            return;
        }
        absorb(machine_.on(session_event::BaseSet{cursor_}));
        begin_next_ = true;
        doing_ = Doing::kWait;
    }
    if (!begin_next_) return;
    const bool at_end = cursor_ == world_.steps;
    const bool checkpoint = cursor_ % kCheckpointEvery == 0 && cursor_ > disk_.step;
    const bool evaluate = cursor_ % kEvaluateEvery == 0 && cursor_ > evaluated_;
    if ((at_end || checkpoint || evaluate || member_change_) && !machine_.all_committed()) return;
    begin_next_ = false;
    if (member_change_ && !at_end) {
        configure("devices came or go");
    } else if (at_end || checkpoint) {
        doing_ = at_end ? Doing::kFetch : Doing::kCheckpoint;
        fetched_.clear();
        fetched_count_.reset();
        progress();
        absorb(machine_.on(session_event::FetchWanted{}));
    } else {
        begin(evaluate);
    }
}

}  // namespace ecopipe::sim
