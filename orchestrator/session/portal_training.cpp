// PortalDriver as the trainer sees it: steps, evaluations and states, the moves between
// steps, and the ways back.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/log.h"
#include "core/step_number.h"
#include "core/units.h"
#include "orchestrator/session/portal_driver.h"
#include "stage_runtime/data/evaluation_reader.h"

namespace ecopipe {
namespace {
constexpr int kBreaksMax = 20;  // without a step that is new in between

// In the order of the micro-batches, whoever ran them: that of one process.
LossTotals loss_of(const std::map<std::string, Done>& done,
                   std::map<std::uint32_t, LossTotals> losses) {
    LossTotals loss;
    for (const auto& [device, said] : done) {
        loss.add(said.loss);
        for (const MicroBatchLoss& each : said.losses) losses[each.micro_batch] = each.loss;
    }
    for (const auto& [micro_batch, each] : losses) loss.add(each);
    return loss;
}

bool same_layers(const Plan& a, const Plan& b) {
    return std::ranges::equal(
        held_stages(a), held_stages(b), [&](const HeldStage& x, const HeldStage& y) {
            const StagePlan& of_a = a.stages[x.stage];
            const StagePlan& of_b = b.stages[y.stage];
            return x.holder.device == y.holder.device && of_a.first_layer == of_b.first_layer &&
                   of_a.last_layer == of_b.last_layer && x.holder.in_flight == y.holder.in_flight;
        });
}

}  // namespace

void PortalDriver::on_memory(const std::string& device, const MemoryMoved& moved) {
    const double budget_mib = static_cast<double>(moved.budget_bytes) / kMib;
    const double needed_mib = static_cast<double>(moved.needed_bytes) / kMib;
    const bool is_short = moved.needed_bytes > moved.budget_bytes;
    const std::string what = fmt::format(
        "{} has {:.1f} MiB for its tensors: takes {:.1f}, recomputing {:.2f} ms a micro-batch{}",
        device, budget_mib, needed_mib, moved.recompute_ms,
        is_short ? ", and can do with no less" : "");
    log_info("{}", what);
    events_.push_back({{{"kind", "memory"},
                        {"device", device},
                        {"cause", what},
                        {"at_step", step_ + 1},
                        {"budget_bytes", moved.budget_bytes},
                        {"needed_bytes", moved.needed_bytes},
                        {"recompute_ms", moved.recompute_ms}},
                       std::nullopt});
    moves_.work_changed(device);
    moves_.short_of_memory(device, is_short ? std::optional(budget_mib) : std::nullopt);
}

void PortalDriver::note_event(OrderedJson what, Instant since) {
    what["generation"] = machine_.generation();
    what["bytes_moved"] = moved_bytes_;
    OrderedJson stages = OrderedJson::array();
    for (const StagePlan& stage : plan_.stages)
        for (const StageHolder& holder : holders_of(stage, plan_.sum_blocks))
            stages.push_back({{"device", holder.device},
                              {"first_layer", stage.first_layer},
                              {"last_layer", stage.last_layer}});
    what["plan"] = std::move(stages);
    events_.push_back({std::move(what), since});
    for (const std::string& line : stage_lines(plan_)) log_info("{}", line);
}

Result<Plan> PortalDriver::plan_over_present() {
    WatchedDeadline deadline(side_.now(), from_ms(options_.rejoin_timeout_s * 1000), kPortalTick);
    for (bool told = false;; told = true) {
        came_back_ = false;
        auto plan = planner_->plan(roster_.usable(), moves_.conditions());
        if (plan) return plan;
        // A device that is about to leave is better than none.
        if (!roster_.leaving().empty())
            if (auto with = planner_->plan(roster_.present(), moves_.conditions())) return with;
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
        pump_or_recover([&] { return machine_.all_committed(); }, kAnswersWait, "commit"));
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
        ECOPIPE_ASSIGN_OR_RETURN(
            const bool ready,
            configure(std::move(plan), fmt::format("{}", fmt::join(causes, "; "))));
        if (!ready) continue;
        rewound_ = state_step_;
        moves_.recovered_at(state_step_);
        OrderedJson devices = OrderedJson::array();
        for (const auto& failure : failures_)
            if (!failure.device.empty()) devices.push_back(failure.device);
        note_event({{"kind", "lost"},
                    {"devices", std::move(devices)},
                    {"cause", fmt::format("{}", fmt::join(causes, "; "))},
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
    auto candidate = planner_->plan(roster_.usable(), moves_.conditions());
    if (!candidate) {
        log_warn("{}, but there is no plan for that: {}", look.reason, candidate.error().message);
        return {};
    }
    const bool leaves = std::any_of(roster_.leaving().begin(), roster_.leaving().end(),
                                    [&](const std::string& device) { return index_.has(device); });
    MoveOffer offer;
    if (look.memory && same_layers(plan_, *candidate)) return {};
    if (!leaves && !look.memory) {
        ECOPIPE_ASSIGN_OR_RETURN(
            const MovePolicy::Weighed weighed,
            moves_.weigh(*planner_, plan_, *candidate, bytes_to_move(PlanIndex(*candidate, flow_)),
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
        if (auto event = side_.next(side_.now() + kPortalTick)) {
            ECOPIPE_RETURN_IF_ERROR(handle(*event));
            ECOPIPE_RETURN_IF_ERROR(drain());
        }
        if (machine_.broken()) return false;
    }
    for (const std::string& device : devices) channels_->send(device, to, tensor);
    return true;
}

Result<void> PortalDriver::send_inputs(TensorKind kind, std::uint64_t step,
                                       std::uint64_t micro_batch, const Batch& batch) {
    TensorAddress to = address(kind, step, micro_batch);
    const std::vector<HostTensor> inputs = batch.all_inputs();
    to.outputs = static_cast<std::uint16_t>(inputs.size());
    for (const HostTensor& input : inputs) {
        ECOPIPE_RETURN_IF_ERROR(
            send_when_room(index_.input_devices(to.micro_batch, to.output), to, input));
        ++to.output;
    }
    return {};
}

Result<void> PortalDriver::start_step(std::uint64_t step, std::vector<Batch> micro_batches,
                                      double loss_divisor, bool trace) {
    ECOPIPE_RETURN_IF_ERROR(consider_move(step));
    if (rewound_) return {};
    step_ = step;
    done_.reset();
    traced_.clear();
    losses_.clear();
    begin_ = {};
    begin_.loss_divisor = loss_divisor;
    begin_.trace = trace;
    for (const Batch& batch : micro_batches)
        begin_.micro_batch_samples.push_back(static_cast<std::uint32_t>(batch.labels.shape()[0]));
    ECOPIPE_RETURN_IF_ERROR(feed(session_event::BeginWanted{step, false}));
    for (std::size_t m = 0; m < micro_batches.size() && !machine_.broken(); ++m) {
        const Batch batch = std::move(micro_batches[m]);
        ECOPIPE_RETURN_IF_ERROR(send_inputs(TensorKind::kInput, step, m, batch));
        const TensorAddress to = address(TensorKind::kLabel, step, m);
        ECOPIPE_RETURN_IF_ERROR(
            send_when_room({index_.label_device(to.micro_batch)}, to, batch.labels));
    }
    return {};  // a failure shows in finish_step
}

Result<StepOutcome> PortalDriver::finish_step() {
    StepOutcome outcome;
    if (rewound_) return outcome;
    ECOPIPE_ASSIGN_OR_RETURN(
        const bool finished,
        pump_or_recover([&] { return done_.has_value(); }, kAnswersWait, step_text(step_ + 1)));
    if (!finished) return outcome;
    outcome.squared_gradient_norms.assign(depot_.model().layers.size(), 0);
    outcome.loss = loss_of(done_->done, losses_);
    for (const auto& [device, done] : done_->done) {
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
        outcome.devices.push_back({device, done.busy_ms, done.wait_ms, done.peak_memory,
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
    losses_.clear();
    begin_ = {};
    begin_.mode = StepMode::kEvaluate;
    EvaluationReader reader(data, batch, readers);
    for (std::uint64_t m = 0; m < reader.count(); ++m)
        begin_.micro_batch_samples.push_back(static_cast<std::uint32_t>(reader.samples(m)));
    step_ = state_step_;  // an evaluation's tensors are of the step that comes next
    ECOPIPE_RETURN_IF_ERROR(feed(session_event::BeginWanted{step_, true}));
    for (std::uint64_t m = 0; m < reader.count() && !machine_.broken(); ++m) {
        ECOPIPE_ASSIGN_OR_RETURN(const Batch part, reader.take());
        const TensorAddress to = address(TensorKind::kEvalLabel, step_, m);
        ECOPIPE_RETURN_IF_ERROR(
            send_when_room({index_.label_device(to.micro_batch)}, to, part.labels));
        ECOPIPE_RETURN_IF_ERROR(send_inputs(TensorKind::kEvalInput, step_, m, part));
    }
    ECOPIPE_ASSIGN_OR_RETURN(const bool finished, pump_or_recover([&] { return done_.has_value(); },
                                                                  kAnswersWait, "evaluation"));
    if (!finished) return loss;
    return loss_of(done_->done, losses_);
}

Result<TensorMap> PortalDriver::state(bool optimizer_state) {
    ECOPIPE_ASSIGN_OR_RETURN(const bool committed, all_committed());
    if (!committed) return TensorMap();
    depot_.collect();
    fetch_ = {optimizer_state};
    ECOPIPE_RETURN_IF_ERROR(feed(session_event::FetchWanted{}));
    ECOPIPE_ASSIGN_OR_RETURN(const bool complete, pump([&] { return depot_.complete(); },
                                                       kAnswersWait, "collecting the weights"));
    if (complete) return depot_.take_collected();
    depot_.give_up_collecting();
    ECOPIPE_RETURN_IF_ERROR(recover());
    return TensorMap();
}

void PortalDriver::end(ExitCode code, const std::string& reason) {
    for (const std::string& device : roster_.devices())
        tell(device, header(step_), End{static_cast<std::uint8_t>(code), reason});
}

}  // namespace ecopipe
