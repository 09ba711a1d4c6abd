#include "tests/sim/sim_stage.h"

#include <algorithm>

#include "core/command_line.h"
#include "domain/plan_index.h"
#include "transport/wire/codec.h"

namespace ecopipe::sim {
namespace {
using std::chrono::milliseconds;
constexpr auto kWatchEvery = milliseconds(200);
constexpr auto kBackAfter = milliseconds(100);
constexpr double kJoinTimeoutS = 1e6;  // who waits for a portal waits
}  // namespace

Result<ValueGraph> ToyCompute::prepare(const Configure&, const Plan& plan,
                                       std::span<const StageId> slices) {
    slices_.clear();
    const ValueGraph& flow = toy_flow(world_.kind);
    const PlanIndex index(plan, flow);
    for (const StageId id : slices) {
        slices_.emplace_back(world_.kind, index.layers_of(id), plan.sum_blocks);
        std::vector<int> values;
        for (const ValueWay& way : index.ways_of(id).returning) values.push_back(way.value);
        if (!values.empty()) slices_.back().set_returns(std::move(values));
    }
    return flow;
}

std::map<int, TensorMap> ToyCompute::layer_states() const {
    std::map<int, TensorMap> out;
    for (const ToySlice& slice : slices_)
        for (const auto& [layer, state] : slice.states()) out[layer] = tensors_of(layer, state);
    for (const ToySlice& slice : slices_)
        for (const TiedUse& use : toy_flow(world_.kind).ties())
            if (slice.layers().contains(use.user))
                out[use.user].push_back({use.name, tensor_of(slice.tied_state(use))});
    return out;
}

Result<void> ToyCompute::load(int layer, const TensorMap& tensors) {
    TensorMap own;
    for (const NamedTensor& entry : tensors) {
        const auto& ties = toy_flow(world_.kind).ties();
        const auto use = std::find_if(ties.begin(), ties.end(), [&](const TiedUse& tie) {
            return tie.name == entry.name && tie.user == layer;
        });
        if (use == ties.end()) {
            own.push_back(entry);
            continue;
        }
        for (ToySlice& slice : slices_)
            if (slice.layers().contains(layer))
                slice.set_tied_state(*use, entry.tensor.as<std::uint64_t>()[0]);
    }
    const std::uint64_t* state = state_in(own);
    if (state == nullptr) {
        world_.violate(name_ + " loads a state of mixed steps");
        return fail(ExitCode::kBadFile, "not a state");
    }
    for (ToySlice& slice : slices_)
        if (slice.layers().contains(layer)) slice.load(layer, *state);
    return {};
}

HostTensor ToyCompute::tied_gradient(SliceId slice, const TiedUse& use) {
    return tensor_of(slices_[slice.index()].tied_gradient(use));
}

void ToyCompute::add_tied_gradient(SliceId slice, const TiedUse& use, const HostTensor& gradient) {
    slices_[slice.index()].add_tied_gradient(use, gradient.as<std::uint64_t>()[0]);
}

HostTensor ToyCompute::tied_weight(SliceId slice, const TiedUse& use) {
    return tensor_of(slices_[slice.index()].tied_state(use));
}

Result<void> ToyCompute::set_tied_weight(SliceId slice, const TiedUse& use,
                                         const HostTensor& weight) {
    slices_[slice.index()].set_tied_state(use, weight.as<std::uint64_t>()[0]);
    return {};
}

void ToyCompute::begin(std::uint64_t step, const Begin& begin) {
    step_ = step;
    losses_.clear();
    for (ToySlice& slice : slices_) {
        for (const auto& [layer, state] : slice.states())
            if (!world_.is_state(step, layer, state))
                world_.violate(fmt::format("{} begins {} {} from another state", name_,
                                           begin.mode == StepMode::kTrain ? "step" : "a test at",
                                           step));
        slice.begin_step();
    }
}

Result<ComputeResult> ToyCompute::run(ComputeJob job) {
    ToySlice& slice = slices_[static_cast<std::size_t>(job.action.slice)];
    const auto micro_batch = static_cast<std::uint32_t>(job.action.micro_batch);
    const auto value = [](const HostTensor& tensor) { return tensor.as<std::uint64_t>()[0]; };
    ComputeResult result;
    result.ended = world_.net.now();
    result.started = result.ended - takes_;
    const ValueGraph& flow = toy_flow(world_.kind);
    const std::vector<int> from = flow.entering(slice.layers());
    if (job.action.kind == ActionKind::kForward) {
        std::vector<std::uint64_t> entering;
        for (std::size_t i = 0; i < from.size(); ++i) {
            const bool input = flow.values()[static_cast<std::size_t>(from[i])].producer < 0;
            entering.push_back(input ? digest(job.tensors.at(i)) : value(job.tensors.at(i)));
        }
        const std::vector<std::uint64_t> leaving = slice.forward(micro_batch, entering);
        if (job.labels.defined()) {
            const std::uint64_t label = digest(job.labels);
            if (job.mode == StepMode::kEvaluate) {
                result.loss = loss_of(leaving.front(), label);
            } else {
                losses_[micro_batch] = loss_of(leaving.front(), label);
                // The gradient of the loss waits where the last slice's backward looks for it.
                values_of_loss_[micro_batch] = mix(leaving.front(), label);
            }
        } else {
            for (const std::uint64_t output : leaving)
                result.tensors.push_back({tensor_of(output)});
        }
        return result;
    }
    if (job.action.kind != ActionKind::kWeightGradient) {
        std::vector<std::uint64_t> returned;
        for (const HostTensor& tensor : job.tensors) returned.push_back(value(tensor));
        if (returned.empty()) returned.push_back(values_of_loss_.at(micro_batch));
        const std::vector<std::uint64_t> gradients = slice.input_gradients(micro_batch, returned);
        for (std::size_t i = 0; i < from.size(); ++i)
            result.tensors.push_back(
                {flow.returns_gradient(from[i]) ? tensor_of(gradients[i]) : HostTensor()});
    }
    if (job.action.kind != ActionKind::kInputGradient) {
        slice.weight_gradients(micro_batch);
        for (int layer = slice.layers().last; job.layer_done && layer >= slice.layers().first;
             --layer)
            job.layer_done(layer);
    }
    return result;
}

StageSums ToyCompute::sums() const {
    StageSums sums;
    for (const int layer : slices_.front().summed_layers()) sums.gradient_bytes[layer] = 8;
    sums.statistics = true;
    return sums;
}

Result<void> ToyCompute::add_sum(int layer, int node, const LayerGradient& sum) {
    slices_.front().add_sum(layer, node, sum);
    return {};
}

Result<void> ToyCompute::set_total(int layer, const LayerGradient& total) {
    slices_.front().set_total(layer, total);
    return {};
}

Result<void> ToyCompute::add_statistics(MicroBatchId micro_batch, const HostTensor& found) {
    slices_.front().add_statistics(micro_batch.value, found);
    return {};
}

StepTotals ToyCompute::finish_step() {
    StepTotals totals;
    totals.losses = losses_;
    for (const ToySlice& slice : slices_)
        totals.squared_gradient_norms.resize(
            totals.squared_gradient_norms.size() +
            static_cast<std::size_t>(slice.layers().last - slice.layers().first + 1));
    return totals;
}

void ToyCompute::commit(const Commit&) {
    before_ = layer_states();
    for (ToySlice& slice : slices_) {
        slice.commit(step_);
        for (const auto& [layer, state] : slice.states())
            if (!world_.is_state(step_ + 1, layer, state))
                world_.violate(fmt::format("{} has another state after step {}", name_, step_));
    }
}

TensorMap ToyCompute::state(SliceId slice, bool) const {
    return checkpoint_of(slices_[slice.index()].states());
}

SimStage::SimStage(World& world, std::string name)
    : world_(world),
      name_(std::move(name)),
      contact_(static_cast<ContactSide&>(*this), activity_),
      channels_(world.net, name_,
                {[this](Delivery delivery) {
                     if (hangs()) return;  // its memory fills, and nobody looks
                     ++activity_.progress;
                     const TensorKind kind = delivery.address.kind;
                     const bool replica = kind == TensorKind::kReplica;
                     if (replica && world_.mistake == Mistake::kConfirmedWithoutReplica) {
                         FrameHeader head;
                         head.generation = driver_.machine().generation();
                         head.step = delivery.address.step;
                         const std::uint32_t layer = delivery.address.producer;
                         contact_.send(head, Stored{layer, layer});
                         return;
                     }
                     if (kind == TensorKind::kActivation &&
                         world_.mistake == Mistake::kStrangersTensorAccepted)
                         for (const SliceRole& role : driver_.machine().slices())
                             for (const AwaitedValue& value : role.values)
                                 if (static_cast<int>(delivery.address.producer) == value.producer)
                                     delivery.peer = value.from;
                     push(std::move(delivery));
                 },
                 [this](const std::string& peer, std::uint64_t instance) {
                     push(stage_input::PeerAttached{peer, instance});
                 },
                 [this] { push(stage_input::RoomMade{}); }}),
      compute_(world, name_),
      driver_({name_, "the portal", 1, kJoinTimeoutS},
              {*this, channels_, compute_, [this] { return world_.net.now(); }}) {
    if (world_.mistake == Mistake::kReplicaOneStepOld)
        channels_.forge = [this](const TensorAddress& address, HostTensor tensor) {
            if (address.kind != TensorKind::kReplica) return tensor;
            return compute_.before().at(static_cast<int>(address.producer))[address.output].tensor;
        };
}

void SimStage::start() {
    world_.net.start(name_, [this](const SimMessage& message) { on_message(message); });
    compute_hangs_ = false;
    asked_to_leave_ = false;
    join();
}

void SimStage::join() {
    ++attempt_;
    instance_ = world_.net.rng().next() | 1;
    world_.net.dial(name_, instance_);
    computing_ = false;
    activity_.busy_since_ns = 0;
    driver_.join(instance_);
    inbox_.clear();
    Hello hello;
    hello.device = name_;
    hello.program_version = kVersion;
    hello.data_port = 1;
    hello.instance = instance_;
    contact_.begin("the portal", std::move(hello), world_.net.now());
    keep_contact(attempt_);
    watch(attempt_);
}

void SimStage::send(const FrameHeader& header, const std::string& body) {
    if (world_.net.runs(name_))  // not killed within this call
        world_.net.send(kPortalPeer, sealed_message(name_, instance_, header, body, {}));
}

void SimStage::send(const FrameHeader& header, StageMessage message) {
    if (std::holds_alternative<Committed>(message) && die_at_commit_ == header.step) {
        die_at_commit_.reset();
        return die();
    }
    if (std::holds_alternative<Done>(message) && deaths_[header.step] < deaths_a_step_) {
        ++deaths_[header.step];
        die();
        return world_.net.at(world_.net.now() + kBackAfter, "", [this] { start(); });
    }
    // Loss and reordering may stop a protocol, but not break its order.
    if (const auto* failed = std::get_if<Failed>(&message);
        failed != nullptr && static_cast<ExitCode>(failed->code) != ExitCode::kUnreachable)
        world_.violate(name_ + ": " + failed->reason);
    std::visit([&](const auto& body) { contact_.send(header, body); }, message);
}

void SimStage::die() {
    world_.net.crash(name_);
    channels_.set_run(0, 0);
}

void SimStage::keep_contact(std::uint64_t attempt) {
    if (attempt != attempt_) return;
    if (const Instant next = contact_.tick(world_.net.now()); next != Instant::max())
        world_.net.at(next, name_, [this, attempt] { keep_contact(attempt); });
}

// The thread looks about at times.
void SimStage::watch(std::uint64_t attempt) {
    if (attempt != attempt_) return;
    turn();
    world_.net.at(world_.net.now() + kWatchEvery, name_, [this, attempt] { watch(attempt); });
}

void SimStage::forge_activation(const SimStage& to) {
    const StageMachine& machine = to.driver_.machine();
    // What a device says of its own layers, nobody can check.
    if (machine.slices().empty() || machine.slices().front().first_layer == 0) return;
    const AwaitedValue& value = machine.slices().front().values.back();
    if (value.from.find(name_) != std::string::npos || value.producer < 0) return;
    TensorAddress address;
    address.generation = machine.generation();
    address.producer = static_cast<std::uint32_t>(value.producer);
    address.output = static_cast<std::uint16_t>(value.output.value_or(0));
    address.outputs = static_cast<std::uint16_t>(address.output + 1);
    address.gradient_returns = true;
    for (const std::uint64_t step : {machine.step(), machine.step() + 1})
        for (std::uint32_t m = 0; m < 3; ++m) {
            address.step = step;
            address.micro_batch = m;
            channels_.send(to.name(), address, tensor_of(world_.net.rng().next()));
        }
}

void SimStage::on_message(const SimMessage& message) {
    const auto head = message.open();
    if (!head) return;  // damaged: dropped, as a socket does
    const auto type = static_cast<MessageType>(head->type);
    if (type == MessageType::kAttach || type == MessageType::kAttached ||
        type == MessageType::kTensorChunk) {
        channels_.on_message(*head, message);
    } else if (message.from == kPortalPeer && message.connection == instance_) {
        // The answer to the connection that it was dialled by.
        contact_.heard(*head, std::as_bytes(std::span(message.body)), world_.net.now());
    }
}

void SimStage::hand_over(const FrameHeader& received, std::vector<std::byte> body) {
    FrameHeader head = received;
    const auto kind = static_cast<MessageType>(head.type);
    if (world_.mistake == Mistake::kOldGenerationAccepted &&
        (kind == MessageType::kBegin || kind == MessageType::kCommit))
        head.generation = driver_.machine().generation();
    push(stage_input::Message{head, std::move(body)});
}

void SimStage::push(StageInput input) {
    inbox_.push_back(std::move(input));
    turn();
}

void SimStage::turn() {
    if (computing_) return;
    while (!inbox_.empty() && !driver_.ended()) {
        StageInput next = std::move(inbox_.front());
        inbox_.pop_front();
        driver_.on(std::move(next));
    }
    if (asked_to_leave_) driver_.leave("SIGTERM");
    driver_.tick(activity_.progress);
    if (driver_.ended()) return end_run();
    if (driver_.next_action()) begin_work();
}

void SimStage::begin_work() {
    const auto next = driver_.next_action();
    computing_ = true;
    activity_.begin(next->step, next->micro_batch.value, world_.net.now());
    if (compute_hangs_) return;
    const auto took =
        Duration(static_cast<std::int64_t>(slowdown_ * world_.net.rng().uniform(1e6, 5e6)));
    world_.net.at(world_.net.now() + took, name_, [this, took, attempt = attempt_] {
        if (attempt != attempt_) return;
        compute_.takes(took);
        driver_.work();
        computing_ = false;
        activity_.end(world_.net.now());
        turn();
    });
}

void SimStage::end_run() {
    const StageEnd ended = *driver_.ended();
    if (ended.result || asked_to_leave_) return world_.net.crash(name_);  // leaves
    if (ended.result.error().code != ExitCode::kUnreachable)
        world_.violate(name_ + ": " + ended.result.error().message);
    join();  // as one that stays
}

}  // namespace ecopipe::sim
