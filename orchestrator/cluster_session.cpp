#include "orchestrator/cluster_session.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "core/log.h"
#include "stage_runtime/model/state_names.h"
#include "stage_runtime/stage_machine.h"

namespace ecopipe {
namespace {

constexpr auto kTick = std::chrono::milliseconds(50);     // how often the caller's check is asked
constexpr auto kReachTimeout = std::chrono::seconds(15);  // to open the data channels
constexpr auto kConfigureTimeout =
    std::chrono::seconds(60);  // load a slice, open channels, take the weights
constexpr auto kStepTimeout = std::chrono::minutes(60);  // liveness ends a dead wait far earlier
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
    membership.silence_max = from_ms(session->options_.peer_timeout_s * 1000);
    membership.ping_interval = membership.silence_max / 10;
    session->members_ = std::make_unique<Membership>(session->loop_, session->inbox_, session->run_,
                                                     std::move(membership));
    ClusterSession* raw = session.get();
    session->data_ = std::make_unique<DataPlane>(
        session->loop_, kPortalPeer,
        DataPlane::Callbacks{
            [raw](Delivery delivery) { raw->inbox_.push(std::move(delivery)); },
            [raw](const std::string& peer) { raw->inbox_.push(portal_event::Attached{peer}); }});
    session->data_->set_run(session->run_);
    session->data_->emulate(session->options_.links, EmulatedLink{});
    ECOPIPE_ASSIGN_OR_RETURN(const std::uint16_t port, session->members_->bind());
    session->bound_ = session->options_.bind;
    session->bound_.port = port;
    return session;
}

Result<void> ClusterSession::pump(const std::function<bool()>& finished, Instant deadline,
                                  const std::string& doing) {
    while (!finished()) {
        const Instant now = monotonic_now();
        if (now >= deadline)
            return fail(ExitCode::kUnreachable,
                        fmt::format("{}: waited in vain for {}", doing, machine_.waiting_for()));
        // Messages first: a device that failed says why before its process ends.
        if (auto event = inbox_.pop_until(std::min<Instant>(deadline, now + kTick))) {
            ECOPIPE_RETURN_IF_ERROR(handle(*event));
        } else if (options_.check) {
            ECOPIPE_RETURN_IF_ERROR(options_.check());
        }
    }
    return {};
}

Result<void> ClusterSession::handle(PortalEvent& event) {
    if (auto* joined = std::get_if<portal_event::Joined>(&event)) {
        const Hello& hello = joined->hello;
        std::string host = hello.data_address;
        if (host.empty()) {
            const auto known = options_.data_address.find(joined->device);
            host = known != options_.data_address.end() ? known->second : joined->address;
        }
        if (host.empty()) host = "127.0.0.1";
        joined_[joined->device] = {hello, Endpoint{host, hello.data_port}.text()};
        log_info("{} joined: {}, {} of {} cores, {} MiB free", joined->device, printable(hello.cpu),
                 hello.threads, hello.cores, hello.memory_mib);
        return {};
    }
    if (auto* lost = std::get_if<portal_event::Lost>(&event)) {
        joined_.erase(lost->device);
        attached_.erase(lost->device);
        log_warn("{} was lost: {}", lost->device, lost->how);
        return absorb(machine_.on(session_event::DeviceLost{lost->device, lost->how}));
    }
    if (auto* attached = std::get_if<portal_event::Attached>(&event)) {
        attached_.insert(attached->device);
        return {};
    }
    if (auto* delivery = std::get_if<Delivery>(&event)) {
        if (delivery->address.kind == TensorKind::kState &&
            delivery->address.generation == generation_)
            fetched_state_.push_back({delivery->address.name, std::move(delivery->tensor)});
        return {};
    }
    return handle_message(std::get<portal_event::Message>(event));
}

Result<void> ClusterSession::handle_message(portal_event::Message& message) {
    const std::span<const std::byte> body(message.body);
    const FrameHeader& head = message.header;
    const auto bad = [&](const Error& error) {
        log_warn("{} sent a bad message of type {}: {}", message.device, head.type, error.message);
        return Result<void>();
    };
    switch (static_cast<MessageType>(head.type)) {
        case MessageType::kReady:
            return absorb(
                machine_.on(session_event::ReadyReceived{message.device, head.generation}));
        case MessageType::kDone: {
            auto done = decode<Done>(body);
            if (!done) return bad(done.error());
            return absorb(machine_.on(session_event::DoneReceived{message.device, head.generation,
                                                                  head.step, std::move(*done)}));
        }
        case MessageType::kCommitted:
            return absorb(machine_.on(
                session_event::CommittedReceived{message.device, head.generation, head.step}));
        case MessageType::kFetched: {
            const auto fetched = decode<Fetched>(body);
            if (!fetched) return bad(fetched.error());
            return absorb(machine_.on(
                session_event::FetchedReceived{message.device, fetched->state_tensors}));
        }
        case MessageType::kFailed: {
            const auto failed = decode<Failed>(body);
            if (!failed) return bad(failed.error());
            return absorb(machine_.on(
                session_event::DeviceFailed{message.device, head.step, head.micro_batch,
                                            static_cast<ExitCode>(failed->code), failed->reason}));
        }
        default:
            log_warn("{} sent an unexpected message of type {}", message.device, head.type);
            return {};
    }
}

Result<void> ClusterSession::absorb(SessionOutcomes outcomes) {
    for (SessionOutcome& outcome : outcomes) {
        if (std::holds_alternative<session_outcome::AllReady>(outcome)) ready_ = true;
        if (auto* done = std::get_if<session_outcome::AllDone>(&outcome)) done_ = std::move(*done);
        if (auto* fetched = std::get_if<session_outcome::AllFetched>(&outcome))
            fetched_ = fetched->state_tensors;
        if (auto* failure = std::get_if<session_outcome::Failure>(&outcome))
            return tl::unexpected<Error>(failure->error);
    }
    return {};
}

Result<void> ClusterSession::wait_for(
    const std::set<std::string>& wanted, Instant deadline,
    const std::function<void(const std::vector<std::string>& missing)>& on_change) {
    std::optional<std::vector<std::string>> told;
    for (;;) {
        std::vector<std::string> missing;
        for (const std::string& device : wanted)
            if (!joined_.contains(device)) missing.push_back(device);
        if (missing != told) {
            on_change(missing);
            told = missing;
        }
        if (missing.empty() || monotonic_now() >= deadline) return {};
        if (options_.check) ECOPIPE_RETURN_IF_ERROR(options_.check());
        if (auto event = inbox_.pop_until(std::min<Instant>(deadline, monotonic_now() + kTick)))
            ECOPIPE_RETURN_IF_ERROR(handle(*event));
    }
}

void ClusterSession::set_plan(Plan plan, TrainingSpec spec, ModelInfo info) {
    plan_ = std::move(plan);
    spec_ = std::move(spec);
    info_ = std::move(info);
    devices_ = plan_devices(plan_);
}

FrameHeader ClusterSession::header(std::uint64_t step) const {
    FrameHeader header;
    header.generation = generation_;
    header.step = step;
    return header;
}

TensorAddress ClusterSession::address(TensorKind kind, std::uint64_t step,
                                      std::uint32_t micro_batch) const {
    TensorAddress address;
    address.generation = generation_;
    address.step = step;
    address.kind = kind;
    address.micro_batch = micro_batch;
    return address;
}

Configure ClusterSession::configuration(const std::string& device,
                                        std::size_t state_tensors) const {
    Configure work;
    work.plan_json = plan_text(plan_);
    work.device = device;
    work.model = spec_.model.zoo;
    work.model_sha256 = spec_.model.sha256;
    work.num_classes = static_cast<std::uint32_t>(spec_.model.num_classes);
    work.input_shape = spec_.model.input_shape;
    work.seed = spec_.seed;
    work.optimizer = spec_.optimizer;
    work.loss = spec_.loss;
    work.state_tensors = static_cast<std::uint32_t>(state_tensors);
    // Of two devices that exchange tensors, the one named earlier in the plan dials.
    const auto position = [&](const std::string& d) {
        return std::find(devices_.begin(), devices_.end(), d) - devices_.begin();
    };
    for (const std::string& peer : tensor_peers(plan_, device))
        work.peers.push_back(
            {peer, joined_.at(peer).data_endpoint, position(device) < position(peer)});
    return work;
}

Result<void> ClusterSession::connect_data_channels() {
    for (const std::string& device : devices_) {
        if (!joined_.contains(device))
            return fail(ExitCode::kUnreachable,
                        fmt::format("device {} of the plan has not joined", device));
        ECOPIPE_ASSIGN_OR_RETURN(const Endpoint endpoint,
                                 parse_endpoint(joined_.at(device).data_endpoint, device));
        ECOPIPE_RETURN_IF_ERROR(data_->dial(device, endpoint));
    }
    return {};
}

// Every tensor goes to the stage that holds its layer.
void ClusterSession::send_state(const TensorMap& state) {
    const StateNames names(info_);
    std::map<std::string, int> slices_before;
    std::vector<std::pair<std::string, std::uint16_t>> stage_place;  // device and slice there
    for (const StagePlan& stage : plan_.stages)
        stage_place.emplace_back(stage.device,
                                 static_cast<std::uint16_t>(slices_before[stage.device]++));
    for (const NamedTensor& entry : state) {
        const int layer = *names.layer_of(entry.name);  // load() has checked
        for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
            if (layer < plan_.stages[s].first_layer || layer > plan_.stages[s].last_layer) continue;
            TensorAddress to = address(TensorKind::kState, step_, 0);
            to.slice = stage_place[s].second;
            to.name = entry.name;
            data_->send(stage_place[s].first, to, entry.tensor);
        }
    }
}

Result<void> ClusterSession::load(const TensorMap& state) {
    if (!machine_.all_committed())
        ECOPIPE_RETURN_IF_ERROR(pump([&] { return machine_.all_committed(); },
                                     monotonic_now() + kStepTimeout, "commit"));
    ECOPIPE_RETURN_IF_ERROR(connect_data_channels());
    ++generation_;
    ready_ = false;
    const StateNames names(info_);
    std::map<std::string, std::size_t> tensors_of;
    for (const NamedTensor& entry : state) {
        const std::optional<int> layer = names.layer_of(entry.name);
        if (!layer)
            return fail(ExitCode::kBadFile,
                        fmt::format("tensor {} is not of this model", printable(entry.name)));
        for (const StagePlan& stage : plan_.stages)
            if (*layer >= stage.first_layer && *layer <= stage.last_layer)
                ++tensors_of[stage.device];
    }
    ECOPIPE_RETURN_IF_ERROR(
        absorb(machine_.on(session_event::ConfigureSent{generation_, devices_})));
    for (const std::string& device : devices_)
        static_cast<void>(
            members_->send(device, header(0), configuration(device, tensors_of[device])));
    const auto all_attached = [&] {
        return std::all_of(devices_.begin(), devices_.end(),
                           [&](const auto& d) { return attached_.contains(d); });
    };
    if (auto reached = pump(all_attached, monotonic_now() + kReachTimeout, "reaching the devices");
        !reached) {
        for (const std::string& device : devices_)
            if (!attached_.contains(device) && joined_.contains(device))
                return fail(
                    ExitCode::kUnreachable,
                    fmt::format("device {} has joined, but its data port cannot be reached at {}",
                                device, joined_.at(device).data_endpoint));
        return reached;
    }
    send_state(state);
    return pump([&] { return ready_; }, monotonic_now() + kConfigureTimeout,
                "giving out the layers");
}

Result<void> ClusterSession::send_when_room(const std::string& device, TensorAddress to,
                                            HostTensor tensor) {
    while (!data_->wait_for_room(monotonic_now() + std::chrono::milliseconds(5))) {
        if (options_.check) ECOPIPE_RETURN_IF_ERROR(options_.check());
        while (auto event = inbox_.pop_until(monotonic_now()))
            ECOPIPE_RETURN_IF_ERROR(handle(*event));
    }
    data_->send(device, std::move(to), std::move(tensor));
    return {};
}

Result<void> ClusterSession::start_step(std::uint64_t step, std::vector<Batch> micro_batches,
                                        double loss_divisor, bool trace) {
    step_ = step;
    done_.reset();
    Begin begin;
    begin.loss_divisor = loss_divisor;
    begin.recovery_point = step;
    begin.trace = trace;
    for (const Batch& batch : micro_batches)
        begin.micro_batch_samples.push_back(static_cast<std::uint32_t>(batch.labels.shape()[0]));
    ECOPIPE_RETURN_IF_ERROR(absorb(machine_.on(session_event::BeginSent{step, false})));
    send_all(header(step), begin);
    for (std::size_t m = 0; m < micro_batches.size(); ++m) {
        const auto id = static_cast<std::uint32_t>(m);
        ECOPIPE_RETURN_IF_ERROR(send_when_room(plan_.stages.front().device,
                                               address(TensorKind::kInput, step, id),
                                               std::move(micro_batches[m].inputs)));
        ECOPIPE_RETURN_IF_ERROR(send_when_room(plan_.stages.back().device,
                                               address(TensorKind::kLabel, step, id),
                                               std::move(micro_batches[m].labels)));
    }
    return {};
}

Result<StepOutcome> ClusterSession::finish_step() {
    ECOPIPE_RETURN_IF_ERROR(pump([&] { return done_.has_value(); }, monotonic_now() + kStepTimeout,
                                 fmt::format("step {}", step_)));
    StepOutcome outcome;
    outcome.squared_gradient_norms.assign(info_.layers.size(), 0);
    for (auto& [device, done] : done_->done) {
        outcome.loss.sum += done.loss_sum;
        outcome.loss.labels += done.labels;
        outcome.loss.correct += done.correct;
        if (done.nonfinite_layer >= 0 &&
            (outcome.nonfinite_layer < 0 || done.nonfinite_layer < outcome.nonfinite_layer))
            outcome.nonfinite_layer = done.nonfinite_layer;
        std::size_t next = 0;
        for (const StagePlan& stage : plan_.stages) {
            if (stage.device != device) continue;
            for (int layer = stage.first_layer; layer <= stage.last_layer; ++layer)
                if (next < done.squared_gradient_norms.size())
                    outcome.squared_gradient_norms[static_cast<std::size_t>(layer)] =
                        done.squared_gradient_norms[next++];
        }
    }
    for (const std::string& device : devices_) {
        Done& done = done_->done[device];
        outcome.devices.push_back({device, done.busy_ms, done.wait_ms, done.peak_bytes,
                                   done.sent_bytes, members_->clock_offset_ns(device),
                                   std::move(done.actions)});
    }
    return outcome;
}

Result<void> ClusterSession::commit(double learning_rate, double gradient_scale) {
    ECOPIPE_RETURN_IF_ERROR(
        pump([&] { return machine_.all_committed(); }, monotonic_now() + kStepTimeout, "commit"));
    ECOPIPE_RETURN_IF_ERROR(absorb(machine_.on(session_event::CommitSent{step_})));
    send_all(header(step_), Commit{learning_rate, gradient_scale});
    return {};
}

Result<LossSum> ClusterSession::evaluate(const Dataset& data, int batch) {
    ECOPIPE_RETURN_IF_ERROR(
        pump([&] { return machine_.all_committed(); }, monotonic_now() + kStepTimeout, "commit"));
    done_.reset();
    Begin begin;
    begin.mode = StepMode::kEvaluate;
    for (std::int64_t at = 0; at < data.size(); at += batch)
        begin.micro_batch_samples.push_back(
            static_cast<std::uint32_t>(std::min<std::int64_t>(batch, data.size() - at)));
    ++step_;  // an evaluation's tensors are of the step that comes next
    ECOPIPE_RETURN_IF_ERROR(absorb(machine_.on(session_event::BeginSent{step_, true})));
    send_all(header(step_), begin);
    std::vector<std::int64_t> indices;
    std::int64_t next = 0;
    for (std::size_t m = 0; m < begin.micro_batch_samples.size(); ++m) {
        indices.resize(begin.micro_batch_samples[m]);
        std::iota(indices.begin(), indices.end(), next);
        next += static_cast<std::int64_t>(indices.size());
        Batch part = data.batch(indices);
        const auto id = static_cast<std::uint32_t>(m);
        ECOPIPE_RETURN_IF_ERROR(send_when_room(plan_.stages.back().device,
                                               address(TensorKind::kEvalLabel, step_, id),
                                               std::move(part.labels)));
        ECOPIPE_RETURN_IF_ERROR(send_when_room(plan_.stages.front().device,
                                               address(TensorKind::kEvalInput, step_, id),
                                               std::move(part.inputs)));
    }
    ECOPIPE_RETURN_IF_ERROR(
        pump([&] { return done_.has_value(); }, monotonic_now() + kStepTimeout, "evaluation"));
    LossSum loss;
    for (const auto& [device, done] : done_->done) {
        loss.sum += done.loss_sum;
        loss.labels += done.labels;
        loss.correct += done.correct;
    }
    return loss;
}

Result<TensorMap> ClusterSession::state(bool optimizer_state) {
    ECOPIPE_RETURN_IF_ERROR(
        pump([&] { return machine_.all_committed(); }, monotonic_now() + kStepTimeout, "commit"));
    fetched_.reset();
    fetched_state_.clear();
    ECOPIPE_RETURN_IF_ERROR(absorb(machine_.on(session_event::FetchSent{})));
    send_all(header(step_), Fetch{optimizer_state});
    ECOPIPE_RETURN_IF_ERROR(
        pump([&] { return fetched_.has_value() && fetched_state_.size() >= *fetched_; },
             monotonic_now() + kConfigureTimeout, "collecting the weights"));
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
