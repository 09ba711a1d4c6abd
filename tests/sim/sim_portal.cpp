#include "tests/sim/sim_portal.h"

#include <utility>

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

SimPortal::SimPortal(World& world, std::set<std::string> devices, bool sliced)
    : PortalDriver(static_cast<PortalSide&>(*this), options(world, this)),
      world_(world),
      devices_(std::move(devices)),
      sliced_(sliced),
      channels_(world.net, kNode,
                {[this](Delivery delivery) {
                     liveness_.progressed(world_.net.now());
                     inbox_.push_back(std::move(delivery));
                 },
                 [this](const std::string& peer, std::uint64_t instance) {
                     inbox_.push_back(portal_event::Attached{peer, instance});
                 },
                 [this] { inbox_.push_back(portal_event::RoomMade{}); }}),
      liveness_(limits()) {
    set_channels(channels_);
    set_planner(std::make_unique<SimPlanner>(sliced, world.sum_blocks));
}

void SimPortal::start() {
    world_.net.start(kNode, [this](const SimMessage& message) { on_message(message); });
    run_ = world_.net.rng().next() | 1;
    channels_.set_run(run_, run_);
    tick();
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
    ECOPIPE_ASSIGN_OR_RETURN(Plan plan, SimPlanner(sliced_, world_.sum_blocks).plan(here, {}));
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

template <class Message>
void SimPortal::send_now(const std::string& to, std::uint64_t connection, FrameHeader head,
                         const Message& message) {
    head.run = run_;
    head.type = static_cast<std::uint16_t>(Message::kType);
    world_.net.send(to, sealed_message(kNode, connection, head, encode(message), {}));
}

void SimPortal::send(const std::string& device, std::uint64_t instance, FrameHeader header,
                     PortalMessage message) {
    const auto member = members_.find(device);
    if (member == members_.end()) return;
    if (member->second.instance != instance && world_.mistake != Mistake::kTellsTheNextLife) return;
    std::visit([&](const auto& body) { send_now(device, member->second.connection, header, body); },
               message);
}

void SimPortal::forget(const std::string& device, std::uint64_t instance) {
    const auto member = members_.find(device);
    if (member == members_.end() || member->second.instance != instance) return;
    members_.erase(member);
    liveness_.left(device);
}

void SimPortal::lose(const std::string& device, const std::string& how) {
    if (members_.erase(device) == 0) return;
    liveness_.left(device);
    inbox_.push_back(portal_event::Lost{device, how});
}

void SimPortal::tick() {
    const Instant now = world_.net.now();
    for (const auto& [device, member] : members_)
        send_now(device, member.connection, {}, Ping{now.time_since_epoch().count()});
    for (const Suspect& suspect : liveness_.suspects(now)) lose(suspect.device, suspect.how);
    if (liveness_.stalled(now)) inbox_.push_back(portal_event::Stalled{"nothing moved"});
    world_.net.at(now + kTick, kNode, [this] { tick(); });
}

void SimPortal::on_hello(const SimMessage& message) {
    auto hello = decode<Hello>(std::as_bytes(std::span(message.body)));
    if (!hello || !devices_.contains(hello->device)) return;
    const Welcome welcome{100, 3000};
    if (const auto known = members_.find(hello->device); known != members_.end()) {
        if (known->second.instance == hello->instance)
            return send_now(hello->device, known->second.connection, {}, welcome);
        // Another process under that name: the connection of the one before it is closed.
        lose(hello->device, "its connection is gone");
    }
    members_[hello->device] = {message.connection, hello->instance};
    liveness_.joined(hello->device, world_.net.now());
    send_now(hello->device, message.connection, {}, welcome);
    if (world_.mistake == Mistake::kStaleRoster)
        hello->instance = first_instance_.try_emplace(hello->device, hello->instance).first->second;
    inbox_.push_back(portal_event::Joined{hello->device, *hello, "127.0.0.1"});
}

void SimPortal::on_message(const SimMessage& message) {
    auto head = message.open();
    if (!head) return;
    const auto type = static_cast<MessageType>(head->type);
    if (type == MessageType::kHello) return on_hello(message);
    if (head->run != run_) return;
    if (type == MessageType::kAttach || type == MessageType::kAttached ||
        type == MessageType::kTensorChunk)
        return channels_.on_message(*head, message);
    const auto member = members_.find(message.from);
    if (member == members_.end() || member->second.connection != message.connection) {
        // It was taken for lost: it may join again.
        return send_now(message.from, message.connection, {}, Refuse{4, "taken for lost"});
    }
    const std::string device = message.from;
    const auto body = std::as_bytes(std::span(message.body));
    liveness_.heard(device, world_.net.now());
    if (type == MessageType::kPong) {
        if (const auto pong = decode<Pong>(body))
            liveness_.pong(device, Instant(Duration(pong->echo_ns)), world_.net.now(),
                           pong->local_ns,
                           {pong->progress, Duration(pong->busy_ns), Duration(pong->longest_ns),
                            pong->step, pong->micro_batch});
        return;
    }
    if (world_.mistake == Mistake::kOldGenerationAccepted)
        head->generation = machine().generation();
    inbox_.push_back(portal_event::Message{device, *head, {body.begin(), body.end()}});
    if (world_.mistake == Mistake::kCommitWithoutAllAcks && type == MessageType::kDone) {
        const std::string made_up = encode(Done{});
        const auto bytes = std::as_bytes(std::span(made_up));
        for (const auto& [other, unused] : members_)
            inbox_.push_back(portal_event::Message{other, *head, {bytes.begin(), bytes.end()}});
    }
}

}  // namespace ecopipe::sim
