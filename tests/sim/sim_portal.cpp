#include "tests/sim/sim_portal.h"

#include <utility>

#include "core/command_line.h"
#include "tests/sim/sim_planner.h"
#include "transport/wire/codec.h"

namespace ecopipe::sim {
namespace {

using std::chrono::milliseconds;
constexpr auto kTick = milliseconds(100);
constexpr auto kGatherFor = std::chrono::seconds(2);
constexpr std::uint64_t kCooldownSteps = 3;
constexpr const char* kNode = kPortalPeer;

LivenessLimits limits() {
    LivenessLimits limits;
    limits.silence_min = milliseconds(800);
    limits.silence_max = milliseconds(3000);
    limits.action_min = milliseconds(1000);
    limits.stall_min = milliseconds(2000);
    return limits;
}

MemberRules rules(std::set<std::string> devices) {
    return {std::move(devices), kVersion, kTick, limits()};
}

// A connection's name, to the book.
std::string name_of(const std::string& node, std::uint64_t connection) {
    return fmt::format("{}#{}", node, connection);
}

PortalOptions options(const World& world, SessionObserver* observer) {
    PortalOptions options;
    options.shared_machine = true;
    options.rejoin_timeout_s = 1e6;  // who waits for a stage waits
    options.observer = observer;
    options.moves.cooldown_steps =
        world.mistake == Mistake::kMoveWithoutCooldown ? 0 : kCooldownSteps;
    options.moves.fixed_ms = 1;
    options.moves.drift.baseline_steps = 3;
    options.moves.drift.evidence_steps = 2;
    options.moves.drift.settle_steps = 1;
    return options;
}

}  // namespace

SimPortal::SimPortal(World& world, std::set<std::string> devices, Placing placing)
    : PortalDriver(static_cast<PortalSide&>(*this), options(world, this)),
      world_(world),
      devices_(std::move(devices)),
      placing_(placing),
      run_(world.net.rng().next() | 1),
      channels_(world.net, kNode,
                {[this](Delivery delivery) {
                     book_.progressed(world_.net.now());
                     inbox_.push_back(std::move(delivery));
                 },
                 [this](const std::string& peer, std::uint64_t instance) {
                     inbox_.push_back(portal_event::Attached{peer, instance});
                 },
                 [this] { inbox_.push_back(portal_event::RoomMade{}); }}),
      book_(static_cast<ControlPort&>(*this), run_, rules(devices_)) {
    set_channels(channels_);
    if (world.kind == ToyKind::kChain)
        channels_.watch = [this](const std::string& peer, const TensorAddress& address) {
            check_send(peer, address);
        };
    set_planner(std::make_unique<SimPlanner>(placing, world.sum_blocks));
}

void SimPortal::start() {
    world_.net.start(kNode, [this](const SimMessage& message) { on_message(message); });
    channels_.set_run(run_, run_);
    tick(world_.net.now());
}

std::optional<PortalEvent> SimPortal::next(Instant deadline) {
    while (inbox_.empty()) {
        if (!world_.net.runs(kNode) || world_.net.now() >= deadline) return std::nullopt;
        if (!world_.net.advance(deadline)) world_.net.idle_until(deadline);
    }
    PortalEvent event = std::move(inbox_.front());
    inbox_.pop_front();
    return event;
}

Result<void> SimPortal::check() {
    if (world_.net.runs(kNode) && world_.net.now() >= world_.end)
        world_.violate(fmt::format("nothing moves any more: waiting for {}{}",
                                   machine().waiting_for(),
                                   machine().work_is_due() ? "" : ", nothing due"));
    if (!world_.violations.empty()) return fail(ExitCode::kRunFailed, world_.violations.front());
    if (!world_.net.runs(kNode)) return fail(ExitCode::kUnreachable, "the portal was killed");
    return {};
}

Result<void> SimPortal::load(const TensorMap& state, std::uint64_t step) {
    const auto ignore = [](const std::vector<std::string>&) {};
    do {
        ECOPIPE_RETURN_IF_ERROR(wait_for(devices_, kGatherFor, ignore));
        ECOPIPE_RETURN_IF_ERROR(check());
    } while (joined().empty());
    // Not where a mistake is looked for: it would be found later.
    if (world_.mistake == Mistake::kNone && Rng(run_).below(4) == 0)
        ECOPIPE_RETURN_IF_ERROR(measure_links());
    std::set<std::string> here;
    for (const auto& [device, joined] : joined()) here.insert(device);
    ECOPIPE_ASSIGN_OR_RETURN(Plan plan, SimPlanner(placing_, world_.sum_blocks).plan(here, {}));
    TrainingSpec spec;
    spec.model.zoo = "toy";
    spec.model.input_shape = {1};
    set_plan(std::move(plan), std::move(spec), model_info(world_.kind));
    return PortalDriver::load(state, step);
}

// As --measure-links does; a device may go meanwhile. A message that is lost costs a probe its
// minute, which the run has besides.
Result<void> SimPortal::measure_links() {
    constexpr double kMbps = 20;
    Instant began = world_.net.now();
    world_.net.faults.mbps = kMbps;
    for (const std::string& from : devices_)
        for (const std::string& to : devices_) {
            if (from >= to || !joined().contains(from) || !joined().contains(to)) continue;
            const auto found = probe_link(from, to);
            world_.end += world_.net.now() - std::exchange(began, world_.net.now());
            ECOPIPE_RETURN_IF_ERROR(check());
            if (!found) continue;
            ++links_measured_;
            if (!(found->mbps > 0 && found->mbps < kMbps * 1.02 && found->latency_ms > 0))
                world_.violate(fmt::format("{}-{}: measured {} Mbit/s, {} ms", from, to,
                                           found->mbps, found->latency_ms));
        }
    world_.net.faults.mbps = 0;
    return {};
}

Result<TensorMap> SimPortal::state(bool optimizer_state) {
    ECOPIPE_ASSIGN_OR_RETURN(TensorMap collected, PortalDriver::state(optimizer_state));
    if (collected.empty()) return collected;
    const auto states = states_in(collected);
    if (!states || std::find(world_.reference.begin(), world_.reference.end(), *states) ==
                       world_.reference.end())
        world_.violate("a checkpoint of mixed states");
    if (world_.net.rng().below(4) == 0) {  // a disk that takes its time
        const Instant written = world_.net.now() + 2 * limits().stall_min;
        while (world_.net.runs(kNode) && world_.net.now() < written)
            if (!world_.net.advance(written)) world_.net.idle_until(written);
    }
    return collected;
}

std::vector<ClusterEvent> SimPortal::take_events() {
    std::vector<ClusterEvent> events = PortalDriver::take_events();
    for (const ClusterEvent& event : events) {
        const auto step = event.what.at("at_step").get<std::uint64_t>();
        const auto kind = event.what.at("kind").get<std::string>();
        world_.trace("{}: {}", kind, event.what.at("cause").get<std::string>());
        if (kind != "moved") {
            last_move_.reset();
            continue;
        }
        ++moves_made_;
        const bool must =
            event.what.at("cause").get<std::string>().find("replicas") != std::string::npos;
        if (last_move_ && !must && step < *last_move_ + kCooldownSteps)
            world_.violate(fmt::format("moved at step {} and again at {}", *last_move_, step));
        last_move_ = step;
    }
    return events;
}

void SimPortal::failed(const std::string& cause) {
    ++recoveries_;
    world_.trace("{}", cause);
}

void SimPortal::plan_in_force(const Plan& plan, const std::string& cause) {
    std::string text;
    for (const StagePlan& stage : plan.stages)
        text += fmt::format(" {} {}-{}", stage.device, stage.first_layer, stage.last_layer);
    world_.trace("generation {}:{} {}", machine().generation(), text, cause);
}

bool SimPortal::send(std::string_view connection, const FrameHeader& header,
                     const std::string& body) {
    const std::size_t mark = connection.find('#');
    const std::string node(connection.substr(0, mark));
    const std::uint64_t number = std::stoull(std::string(connection.substr(mark + 1)));
    if (!world_.net.is_open(node, number, kNode)) return false;
    world_.net.send(node, sealed_message(kNode, number, header, body, {}));
    return true;
}

void SimPortal::send(const std::string& device, std::uint64_t instance, FrameHeader header,
                     PortalMessage message) {
    if (world_.mistake == Mistake::kTellsTheNextLife) instance = instances_[device].second;
    static_cast<void>(book_.send(device, instance, header, message));
}

void SimPortal::tick(Instant due) {
    book_.tick(world_.net.now(), due);
    const Instant next = world_.net.now() + kTick;
    world_.net.at(next, kNode, [this, next] { tick(next); });
}

void SimPortal::tell(PortalEvent event) {
    if (auto* newcomer = std::get_if<portal_event::Joined>(&event)) {
        std::uint64_t& instance = newcomer->hello.instance;
        auto& [first, last] = instances_.try_emplace(newcomer->device, instance, 0).first->second;
        last = instance;
        if (world_.mistake == Mistake::kStaleRoster) instance = first;
    }
    std::optional<FrameHeader> done;
    if (auto* message = std::get_if<portal_event::Message>(&event)) {
        if (world_.mistake == Mistake::kOldGenerationAccepted)
            message->header.generation = machine().generation();
        if (message->header.type == static_cast<std::uint16_t>(MessageType::kDone))
            done = message->header;
    }
    inbox_.push_back(std::move(event));
    if (!done || world_.mistake != Mistake::kCommitWithoutAllAcks) return;
    const std::string made_up = encode(Done{});
    const auto bytes = std::as_bytes(std::span(made_up));
    for (const std::string& device : devices_)
        inbox_.push_back(portal_event::Message{device, *done, {bytes.begin(), bytes.end()}});
}

void SimPortal::check_send(const std::string& peer, const TensorAddress& address) {
    switch (address.kind) {
        case TensorKind::kInput:
        case TensorKind::kLabel:
        case TensorKind::kEvalInput:
        case TensorKind::kEvalLabel:
            if (plan().schedule == "v-half" && peer != plan().stages.front().device)
                world_.violate("an input or a label goes to " + peer);
            return;
        default:
            return;
    }
}

void SimPortal::on_message(const SimMessage& message) {
    const auto head = message.open();
    if (!head) return;
    switch (static_cast<MessageType>(head->type)) {
        case MessageType::kAttach:
        case MessageType::kAttached:
        case MessageType::kTensorChunk:
            if (head->run == run_) channels_.on_message(*head, message);
            return;
        default:
            book_.heard({name_of(message.from, message.connection), "127.0.0.1", *head,
                         std::as_bytes(std::span(message.body))},
                        world_.net.now());
    }
}

}  // namespace ecopipe::sim
