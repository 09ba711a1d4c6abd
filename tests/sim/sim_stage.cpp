#include <algorithm>
#include <cstring>

#include "domain/plan_index.h"
#include "planner/schedule/plan_file.h"
#include "tests/sim/sim_cluster.h"

namespace ecopipe::sim {
namespace {
using std::chrono::milliseconds;
constexpr auto kHelloEvery = milliseconds(200);
constexpr auto kStageAttachEvery = milliseconds(200);
constexpr auto kPortalSilence = std::chrono::seconds(5);
constexpr auto kLeavePatience = std::chrono::seconds(3);
constexpr const char* kPortalNode = kPortalPeer;
}  // namespace

SimStage::SimStage(World& world, std::string name) : world_(world), name_(std::move(name)) {}

void SimStage::start() {
    world_.net.start(name_, [this](const SimMessage& message) { on_message(message); });
    compute_hangs_ = false;
    join();
}

void SimStage::join() {
    ++attempt_;
    instance_ = world_.net.rng().next() | 1;
    welcomed_ = false;
    run_ = 0;
    machine_ = StageMachine();
    keeper_.clear();
    slices_.clear();
    tensors_.clear();
    early_.clear();
    attached_.clear();
    wanted_.clear();
    computing_since_.reset();
    say_hello(attempt_);
}

template <class Message>
void SimStage::send(const std::string& to, FrameHeader head, const Message& message,
                    std::string payload) {
    head.run = run_;
    head.type = static_cast<std::uint16_t>(Message::kType);
    SimMessage out{name_, instance_, {}, encode(message), std::move(payload)};
    const auto sealed = seal(head, out.body, out.payload.size());
    out.header.assign(reinterpret_cast<const char*>(sealed.data()), sealed.size());
    world_.net.send(to, std::move(out));
}

FrameHeader SimStage::header() const {
    FrameHeader head;
    head.generation = machine_.generation();
    head.step = machine_.step();
    head.micro_batch = micro_batch_;
    return head;
}

void SimStage::say_hello(std::uint64_t attempt) {
    if (attempt != attempt_ || welcomed_) return;
    Hello hello;
    hello.device = name_;
    hello.program_version = "sim";
    hello.data_port = 1;
    hello.instance = instance_;
    send(kPortalNode, {}, hello);
    world_.net.at(world_.net.now() + kHelloEvery, name_, [this, attempt] { say_hello(attempt); });
}

void SimStage::watch_portal(std::uint64_t attempt) {
    if (attempt != attempt_) return;
    if (world_.net.now() - heard_ > kPortalSilence && !hangs()) {
        join();  // orphaned: waits for the next portal
        return;
    }
    world_.net.at(world_.net.now() + milliseconds(500), name_,
                  [this, attempt] { watch_portal(attempt); });
}

void SimStage::ask_to_leave() {
    if (!welcomed_ || hangs()) return;
    send(kPortalNode, header(), Leave{"left on SIGTERM"});
    // Where nobody can take its layers it goes all the same, and the run waits for somebody.
    world_.net.at(world_.net.now() + kLeavePatience, name_, [this] { world_.net.crash(name_); });
}

void SimStage::on_message(const SimMessage& message) {
    const auto head = message.open();
    if (!head) return;  // damaged: dropped, as a socket does
    const auto type = static_cast<MessageType>(head->type);
    if (type == MessageType::kAttach || type == MessageType::kAttached ||
        type == MessageType::kTensorChunk) {
        if (!hangs() && run_ != 0 && head->run == run_) on_data(*head, message);
    } else if (message.from == kPortalNode) {
        on_control(*head, message);
    }
}

void SimStage::on_control(const FrameHeader& received, const SimMessage& message) {
    FrameHeader head = received;
    const auto kind = static_cast<MessageType>(head.type);
    if (world_.mistake == Mistake::kOldGenerationAccepted &&
        (kind == MessageType::kBegin || kind == MessageType::kCommit))
        head.generation = machine_.generation();
    // The portal answers the connection that it was dialled by.
    if (message.connection != instance_) return;
    heard_ = world_.net.now();
    // A hung compute thread handles nothing; the network thread still answers pings.
    if (hangs() && static_cast<MessageType>(head.type) != MessageType::kPing) return;
    const auto body = std::as_bytes(std::span(message.body));
    switch (static_cast<MessageType>(head.type)) {
        case MessageType::kWelcome:
            if (welcomed_) return;
            welcomed_ = true;
            run_ = head.run;
            watch_portal(attempt_);
            break;
        case MessageType::kRefuse:
            if (welcomed_) join();
            break;
        case MessageType::kPing: {
            const auto ping = decode<Ping>(body);
            if (!ping || !welcomed_) return;
            Pong pong{ping->sent_ns,
                      world_.net.now().time_since_epoch().count(),
                      progress_,
                      0,
                      milliseconds(5).count() * 1'000'000,
                      machine_.step(),
                      micro_batch_};
            if (computing_since_)
                pong.busy_ns =
                    static_cast<std::uint64_t>((world_.net.now() - *computing_since_).count() + 1);
            send(kPortalNode, {}, pong);
            break;
        }
        case MessageType::kConfigure:
            if (const auto work = decode<Configure>(body)) configure(head, *work);
            break;
        case MessageType::kBegin: {
            const auto begin = decode<Begin>(body);
            if (!begin) return;
            ActionList actions;
            const auto at = PlanIndex(plan_).place(name_);
            if (begin->mode == StepMode::kEvaluate) {
                const auto parts = static_cast<int>(begin->micro_batch_samples.size());
                for (int m = 0; m < parts; ++m) actions.push_back({ActionKind::kForward, m, 0});
            } else if (at) {
                const auto lists =
                    plan_actions(plan_, static_cast<int>(begin->micro_batch_samples.size()));
                if (lists) actions = lists->at(*at);
            }
            obey(machine_.on(
                stage_event::Begun{head.generation, head.step, *begin, std::move(actions)}));
            break;
        }
        case MessageType::kCommit:
            if (const auto commit = decode<Commit>(body))
                obey(machine_.on(stage_event::CommitReceived{head.generation, head.step, *commit}));
            break;
        case MessageType::kFetch:
            if (head.generation == machine_.generation())
                obey(machine_.on(stage_event::FetchReceived{Fetch{true}}));
            break;
        case MessageType::kEnd:
            world_.net.crash(name_);  // leaves
            break;
        default:
            break;
    }
}

ToySlice& SimStage::slice_with(int layer) {
    return *std::find_if(slices_.begin(), slices_.end(), [&](const ToySlice& slice) {
        return layer >= slice.first() && layer <= slice.last();
    });
}

void SimStage::configure(const FrameHeader& head, const Configure& work) {
    if (head.generation <= machine_.generation()) return;
    // What the slices hold is one of the kept states too, if it is the one that all go to.
    if (machine_.state() == head.step)
        for (const ToySlice& slice : slices_)
            for (const auto& [layer, state] : slice.states())
                keeper_.put(head.step, layer, tensors_of(state));
    keeper_.rewind_to(head.step);
    const auto plan = parse_plan(work.plan_json, "the portal's plan");
    if (!plan) {
        world_.violate("a plan that cannot be read");
        return;
    }
    plan_ = *plan;
    slices_.clear();
    computing_since_.reset();
    const auto roles = slice_roles(PlanIndex(plan_), name_, 0);
    for (const SliceRole& role : roles) slices_.emplace_back(role.first_layer, role.last_layer);
    buddy_ = work.buddy;
    wanted_.clear();
    std::set<std::string> missing;
    for (const PeerAddress& peer : work.peers) {
        wanted_[peer.device] = peer.instance;
        if (attached_[peer.device] != peer.instance) missing.insert(peer.device);
    }
    if (attached_[kPortalPeer] == 0) missing.insert(kPortalPeer);
    obey(machine_.on(stage_event::Configured{head.generation, name_, roles, missing, head.step,
                                             work.restore, work.supply, work.keep_snapshots}));
    world_.trace("  {} is at generation {}: {}", name_, head.generation, machine_.waiting_for());
    // What came whole for an earlier configuration that broke off need not come again.
    for (const LayerTransfer& transfer : work.restore)
        for (auto layer = static_cast<int>(transfer.first_layer);
             layer <= static_cast<int>(transfer.last_layer); ++layer)
            if (keeper_.find(head.step, layer) != nullptr)
                obey(machine_.on(
                    stage_event::LayerArrived{head.generation, head.step, layer, false}));
    for (const PeerAddress& peer : work.peers)
        if (peer.dial) {
            send(peer.device, {}, Attach{name_, instance_});  // heals what only one end believes in
            dial(peer.device, peer.instance, attempt_);
        }
    for (auto& [peer, address, tensor] : std::exchange(early_, {}))
        take_tensor(peer, address, std::move(tensor));
}

void SimStage::dial(const std::string& peer, std::uint64_t instance, std::uint64_t attempt) {
    if (attempt != attempt_ || wanted_[peer] != instance || attached_[peer] == instance) return;
    send(peer, {}, Attach{name_, instance_});
    world_.net.at(world_.net.now() + kStageAttachEvery, name_,
                  [this, peer, instance, attempt] { dial(peer, instance, attempt); });
}

void SimStage::on_data(const FrameHeader& head, const SimMessage& message) {
    const std::string& peer = message.from;
    const auto body = std::as_bytes(std::span(message.body));
    const auto attach = [&](std::uint64_t instance) {
        attached_[peer] = instance;
        if (peer == kPortalPeer || wanted_[peer] == instance)
            obey(machine_.on(stage_event::Attached{peer}));
    };
    switch (static_cast<MessageType>(head.type)) {
        case MessageType::kAttach:
            if (const auto request = decode<Attach>(body)) {
                send(peer, {}, Attached{name_, instance_});
                if (attached_[peer] != request->instance) attach(request->instance);
            }
            break;
        case MessageType::kAttached:
            if (const auto answer = decode<Attached>(body);
                answer && attached_[peer] != answer->instance)
                attach(answer->instance);
            break;
        default: {
            const auto chunk = decode<TensorChunk>(body);
            // Of a socket that is not the one attached: a stranger's.
            if (!chunk || attached_[peer] != message.connection) return;
            HostTensor tensor = HostTensor::allocate(chunk->dtype, chunk->shape);
            std::memcpy(tensor.data(), message.payload.data(), tensor.bytes());
            take_tensor(peer,
                        {head.generation, head.step, chunk->kind, head.micro_batch, head.slice,
                         chunk->producer, chunk->output, chunk->outputs, chunk->gradient_returns,
                         chunk->name},
                        std::move(tensor));
        }
    }
}

void SimStage::take_tensor(const std::string& peer, TensorAddress address, HostTensor tensor) {
    if (address.generation > machine_.generation()) {
        early_.emplace_back(peer, address, std::move(tensor));
        return;
    }
    if (is_state(address.kind)) {
        if (address.generation < machine_.generation()) return;
        const auto layer = static_cast<int>(address.producer);
        const bool replica = address.kind == TensorKind::kReplica;
        if (replica && world_.mistake == Mistake::kConfirmedWithoutReplica) {
            obey(machine_.on(
                stage_event::LayerArrived{address.generation, address.step, layer, true}));
            return;
        }
        if (keeper_.add(address.step, layer, address.output, address.outputs,
                        {address.name, std::move(tensor)}))
            obey(machine_.on(
                stage_event::LayerArrived{address.generation, address.step, layer, replica}));
        return;
    }
    tensors_.insert_or_assign(address, std::move(tensor));
    obey(machine_.on(stage_event::TensorArrived{address}));
}

void SimStage::send_tensor(const std::string& to, TensorAddress address, HostTensor tensor) {
    FrameHeader head;
    head.generation = address.generation;
    head.step = address.step;
    head.micro_batch = address.micro_batch;
    head.slice = address.slice;
    const TensorChunk chunk{address.kind,    address.producer,         address.output,
                            address.outputs, address.gradient_returns, address.name,
                            tensor.dtype(),  tensor.shape(),           0};
    send(to, head, chunk,
         std::string(reinterpret_cast<const char*>(tensor.data()), tensor.bytes()));
}

void SimStage::send_layer(const std::string& to, TensorKind kind, std::uint64_t step, int layer,
                          const TensorMap& tensors) {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        TensorAddress address;
        address.generation = machine_.generation();
        address.step = step;
        address.kind = kind;
        address.producer = static_cast<std::uint32_t>(layer);
        address.output = static_cast<std::uint16_t>(i);
        address.outputs = static_cast<std::uint16_t>(tensors.size());
        address.name = tensors[i].name;
        send_tensor(to, address, tensors[i].tensor);
    }
}

void SimStage::obey(StageCommands commands) {
    for (const StageCommand& command : commands) {
        if (const auto* load = std::get_if<stage_command::LoadLayer>(&command)) {
            const TensorMap* kept = keeper_.find(load->step, load->layer);
            const std::uint64_t* state = kept != nullptr ? state_in(*kept) : nullptr;
            if (state == nullptr) {
                world_.violate(name_ + " is to load a state that it has not got");
                return;
            }
            if (!world_.is_state(load->step, load->layer, *state))
                world_.violate(name_ + " loads a state of another step");
            slice_with(load->layer).load(load->layer, *state);
        } else if (const auto* supply = std::get_if<stage_command::SupplyLayers>(&command)) {
            for (auto layer = static_cast<int>(supply->transfer.first_layer);
                 layer <= static_cast<int>(supply->transfer.last_layer); ++layer) {
                if (layer == kStatelessLayer) continue;
                const TensorMap* kept = keeper_.find(supply->step, layer);
                if (kept == nullptr) {
                    world_.violate(name_ + " is to give a state that it has not got");
                } else {
                    send_layer(supply->transfer.peer, TensorKind::kState, supply->step, layer,
                               *kept);
                }
            }
        } else if (const auto* drop_old = std::get_if<stage_command::DropSnapshots>(&command)) {
            keeper_.drop_before(drop_old->before);
        } else if (const auto* snapshot = std::get_if<stage_command::TakeSnapshot>(&command)) {
            for (const ToySlice& slice : slices_) {
                for (const auto& [layer, state] : slice.states()) {
                    keeper_.put(snapshot->step, layer, tensors_of(state));
                    const bool old = world_.mistake == Mistake::kReplicaOneStepOld;
                    send_layer(buddy_, TensorKind::kReplica, snapshot->step, layer,
                               old ? before_.at(layer) : tensors_of(state));
                    FrameHeader head = header();
                    head.step = snapshot->step;
                    const auto number = static_cast<std::uint32_t>(layer);
                    send(kPortalNode, head, Stored{number, number});
                }
            }
        } else if (const auto* stored = std::get_if<stage_command::SendStored>(&command)) {
            FrameHeader head = header();
            head.step = stored->step;
            const auto number = static_cast<std::uint32_t>(stored->layer);
            send(kPortalNode, head, Stored{number, number});
        } else if (std::holds_alternative<stage_command::SendReady>(command)) {
            send(kPortalNode, header(), Ready{});
        } else if (std::holds_alternative<stage_command::StartStep>(command)) {
            for (ToySlice& slice : slices_) slice.begin_step();
            done_ = {};
        } else if (const auto* action = std::get_if<stage_command::Run>(&command)) {
            run(*action);
        } else if (const auto* drop = std::get_if<stage_command::DropTensor>(&command)) {
            tensors_.erase(drop->address);
        } else if (std::holds_alternative<stage_command::ReportStep>(command)) {
            send(kPortalNode, header(), done_);
            obey(machine_.on(stage_event::StepReported{}));
        } else if (std::holds_alternative<stage_command::ApplyUpdate>(command)) {
            const std::uint64_t step = machine_.step();
            for (ToySlice& slice : slices_) {
                for (const auto& [layer, state] : slice.states())
                    before_[layer] = tensors_of(state);
                slice.commit(step);
                for (const auto& [layer, state] : slice.states())
                    if (!world_.is_state(step + 1, layer, state))
                        world_.violate(name_ + " has another state after step " +
                                       std::to_string(step));
            }
            obey(machine_.on(stage_event::UpdateFinished{}));
        } else if (std::holds_alternative<stage_command::SendCommitted>(command)) {
            send(kPortalNode, header(), Committed{});
        } else if (std::holds_alternative<stage_command::SendState>(command)) {
            std::uint32_t count = 0;
            for (const ToySlice& slice : slices_)
                for (const auto& [layer, state] : slice.states()) {
                    send_layer(kPortalPeer, TensorKind::kState, machine_.step(), layer,
                               tensors_of(state));
                    count += 2;
                }
            send(kPortalNode, header(), Fetched{count});
        } else if (const auto* error = std::get_if<stage_command::ProtocolError>(&command)) {
            // Loss and reordering may stop a protocol, but not break its order.
            world_.violate(name_ + ": " + error->reason);
            return;
        }
    }
}

void SimStage::run(const stage_command::Run& action) {
    micro_batch_ = static_cast<std::uint32_t>(action.action.micro_batch);
    const auto index = static_cast<std::size_t>(action.action.slice);
    const SliceRole role = machine_.slices()[index];
    std::vector<std::uint64_t> values;
    for (const TensorAddress& address : action.tensors) {
        values.push_back(tensors_.at(address).as<std::uint64_t>()[0]);
        tensors_.erase(address);
    }
    computing_since_ = world_.net.now();
    if (compute_hangs_) return;
    const std::uint64_t attempt = attempt_;
    const std::uint32_t generation = machine_.generation();
    const auto took = Duration(static_cast<std::int64_t>(world_.net.rng().uniform(1e6, 5e6)));
    world_.net.at(world_.net.now() + took, name_, [=, this] {
        if (attempt != attempt_ || generation != machine_.generation()) return;
        TensorAddress address;
        address.generation = generation;
        address.step = machine_.step();
        address.micro_batch = micro_batch_;
        const bool evaluates = machine_.mode() == StepMode::kEvaluate;
        if (action.action.kind == ActionKind::kForward) {
            const std::uint64_t output = slices_[index].forward(micro_batch_, values[0]);
            if (role.last) {
                done_.loss.add(loss_of(output, values[1]));
                // The gradient of the loss waits where the last stage's backward looks for it.
                if (!evaluates) values_of_loss_[micro_batch_] = mix(output, values[1]);
            } else {
                address.kind = evaluates ? TensorKind::kEvalActivation : TensorKind::kActivation;
                address.producer = static_cast<std::uint32_t>(role.last_layer);
                send_tensor(role.downstream, address, tensor_of(output));
            }
        } else {
            const std::uint64_t gradient =
                role.last ? values_of_loss_.at(micro_batch_) : values.at(0);
            const std::uint64_t back = slices_[index].backward(micro_batch_, gradient);
            if (role.sends_gradient) {
                address.kind = TensorKind::kGradient;
                address.producer = static_cast<std::uint32_t>(role.first_layer - 1);
                send_tensor(role.upstream, address, tensor_of(back));
            }
        }
        finish_action();
    });
}

void SimStage::finish_action() {
    computing_since_.reset();
    ++progress_;
    obey(machine_.on(stage_event::ActionFinished{}));
}

}  // namespace ecopipe::sim
