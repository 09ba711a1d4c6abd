#include "fl_server/service/federation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/log.h"
#include "fl_server/strategies/decision_json.h"

namespace ecopipe {
namespace {

constexpr std::size_t kEventsPerSnapshot = 1000;
constexpr double kComesBackWithinS = 60;  // who is waited for before a federation ends without it

}  // namespace

Federation::Federation(FederationOptions options, const ModelLayout& layout, Journal journal,
                       Spool spool, ModelStore models, std::unique_ptr<Strategy> strategy)
    : options_(std::move(options)),
      layout_(layout),
      journal_(std::move(journal)),
      spool_(std::move(spool)),
      models_(std::move(models)),
      strategy_(std::move(strategy)),
      intake_(layout_, spool_, options_.limits),
      clock_(options_.now_s),
      ledger_(options_.evaluate ? JudgedBy::kServer : JudgedBy::kClusters) {
    for (const LayoutTensor& tensor : layout_.tensors())
        entries_.push_back({tensor.name, tensor.dtype, tensor.shape});
}

Result<BlockSourcePtr> Federation::model(std::uint64_t version) const {
    if (version == this->version()) return memory_source(global());
    if (!models_.has(version))
        return fail(ExitCode::kRunFailed, fmt::format("version {} is not kept any more", version));
    return models_.source(version);
}

bool Federation::finished() const {
    if (options_.rounds > 0 && version() >= options_.rounds) return true;
    if (!finish_from_) return false;
    if (tasks_.empty() || version() > *finish_from_) return true;
    // Nobody is left whose update could end the round at hand; its deadline still may.
    if (sites_.anyone_joined()) return false;
    const double away_s = clock_.now_s() - sites_.last_left_s();
    return clock_.paused() || (!clock_.waits() && away_s > kComesBackWithinS);
}

bool Federation::disk_is_low() const {
    return spool_.free_bytes() <
           (options_.limits.free_space_mib << 20U) + layout_.bytes() + intake_.bytes_to_come();
}

// ---- turns

Result<void> Federation::begin_turn() {
    ECOPIPE_CHECK(!in_turn_);
    clock_.advance();
    in_turn_ = true;
    return journal_.begin();
}

Result<void> Federation::end_turn() {
    ECOPIPE_CHECK(in_turn_);
    const OwnWork working(clock_);
    if (std::exchange(unsaved_.spool_files, false)) ECOPIPE_RETURN_IF_ERROR(spool_.sync());
    if (unsaved_.version || unsaved_.events > kEventsPerSnapshot)
        ECOPIPE_RETURN_IF_ERROR(save_snapshot());
    ECOPIPE_RETURN_IF_ERROR(journal_.commit());
    in_turn_ = false;
    if (std::exchange(unsaved_.version, false) && ledger_.awaited()) return after_commit();
    return {};
}

Result<void> Federation::save_snapshot() {
    ECOPIPE_ASSIGN_OR_RETURN(const std::uint64_t fold_through, journal_.last_fold());
    ECOPIPE_RETURN_IF_ERROR(journal_.set_snapshot(snapshot(fold_through)));
    unsaved_.events = 0;
    return {};
}

std::vector<Outgoing> Federation::take_outgoing() { return std::exchange(outgoing_, {}); }

// ---- events

Result<void> Federation::feed(const StrategyEvent& event) {
    if (!replaying_) {
        ECOPIPE_RETURN_IF_ERROR(journal_.add_event(clock_.now_s(), event_json(event)));
        ++unsaved_.events;
    }
    note(event);
    return obey(strategy_->on(clock_.now_s(), event));
}

void Federation::note(const StrategyEvent& event) {
    tasks_.close(sites_.note(event));
    if (const auto* failed = std::get_if<strategy_event::Failed>(&event)) {
        ledger_.note_rejected(failed->cluster, failed->reason);
    } else if (std::holds_alternative<strategy_event::Committed>(event)) {
        ledger_.forget_awaited();
    } else if (std::holds_alternative<strategy_event::Tick>(event)) {
        clock_.forget_deadline();
    }
}

Result<void> Federation::hello(const ClientFacts& facts, std::uint64_t working_on, bool tests) {
    const auto news = sites_.hello(facts, tests);
    if (news) ECOPIPE_RETURN_IF_ERROR(feed(*news));
    const Site& s = sites_.at(facts.cluster);
    if (!s.record.quarantined && s.task != 0 && s.task != working_on) send_task(s.task);
    return {};
}

Result<void> Federation::left(const std::string& cluster) {
    sites_.leave(cluster, clock_.now_s());
    const Site& s = sites_.at(cluster);
    if (s.task != 0) intake_.abandon(s.task);
    if (!s.joined) return {};
    return feed(strategy_event::Left{cluster});
}

void Federation::restarted(const std::string& cluster) {
    if (const Site& s = sites_.at(cluster); s.task != 0) intake_.abandon(s.task);
}

Result<void> Federation::status(const std::string& cluster, const ClusterStatus& status) {
    const auto news = sites_.status(cluster, status.latency_s, status.degraded);
    log_info("cluster {}: {}, {:.1f} s a task", cluster, printable(status.note), status.latency_s);
    return news ? feed(*news) : Result<void>();
}

Result<void> Federation::tick() {
    if (clock_.paused() || ledger_.awaited()) return {};
    ECOPIPE_RETURN_IF_ERROR(let_go_of_absent());
    if (!clock_.due()) return {};
    return feed(strategy_event::Tick{});
}

Result<void> Federation::let_go_of_absent() {
    const auto absence_s = static_cast<double>(options_.limits.absence_s);
    if (absence_s == 0) return {};
    for (const std::string& cluster : sites_.away_for(clock_.now_s(), absence_s)) {
        if (ledger_.awaited())
            return {};  // a round ended with the one before: the next turn goes on
        const std::uint64_t number = sites_.at(cluster).task;
        UpdateRow row;
        row.task = number;
        row.cluster = cluster;
        row.base_version = tasks_.find(number)->base_version;
        row.state = UpdateState::kRejected;
        row.reason = fmt::format("the cluster was away for {:g} s", absence_s);
        log_warn("cluster {} loses its task {}: away for {:g} s", cluster, number, absence_s);
        ECOPIPE_RETURN_IF_ERROR(journal_.add_update(row));
        ECOPIPE_RETURN_IF_ERROR(
            feed(strategy_event::Failed{.cluster = cluster, .reason = row.reason}));
    }
    return {};
}

Result<void> Federation::finish() {
    finish_from_ = version();
    return journal_.set_meta("finish_from", std::to_string(version()));
}

Result<void> Federation::end() {
    ECOPIPE_CHECK(!in_turn_);
    return journal_.remove_meta("finish_from");
}

Result<void> Federation::pause(bool on) {
    clock_.pause(on);
    ECOPIPE_RETURN_IF_ERROR(journal_.set_meta("paused", on ? "1" : "0"));
    if (on) return {};
    for (const auto& [number, task] : tasks_.all()) send_task(number);
    return {};
}

Result<void> Federation::admit(const std::string& cluster) {
    if (!sites_.admit(cluster))
        return fail(ExitCode::kUsage,
                    fmt::format("cluster {} is not in quarantine", printable(cluster)));
    const Site& s = sites_.at(cluster);
    ECOPIPE_RETURN_IF_ERROR(journal_.set_site(s.record));
    log_info("cluster {} is admitted again", cluster);
    if (!s.connected || s.joined) return {};
    return feed(strategy_event::Joined{s.facts});
}

// ---- updates

Result<std::optional<Intake::Announced>> Federation::announce(const std::string& cluster,
                                                              const UpdateSlice& slice) {
    using Answer = std::optional<Intake::Announced>;
    if (slice.epoch != epoch_) {
        send_verdict(cluster, slice.sequence, false,
                     "its task is of before the federation's state was restored");
        return Answer();
    }
    ECOPIPE_ASSIGN_OR_RETURN(const auto known, journal_.update(slice.sequence));
    if (known && known->cluster == cluster) {
        send_verdict(cluster, slice.sequence, known->state != UpdateState::kRejected,
                     known->reason);
        return Answer();
    }
    if (sites_.at(cluster).record.quarantined) {
        send_verdict(cluster, slice.sequence, false, "the cluster is in quarantine");
        return Answer();
    }
    const OpenTask* task = tasks_.find_of(cluster, slice.sequence);
    if (task == nullptr) {
        ECOPIPE_RETURN_IF_ERROR(refuse_unknown(cluster, slice.sequence));
        return Answer();
    }
    const std::uint64_t staleness = version() - task->base_version;
    if (options_.limits.staleness_max > 0 && staleness > options_.limits.staleness_max) {
        ECOPIPE_RETURN_IF_ERROR(reject(cluster, slice,
                                       fmt::format("it is {} versions old, expected at most {}",
                                                   staleness, options_.limits.staleness_max)));
        return Answer();
    }
    ECOPIPE_ASSIGN_OR_RETURN(BlockSourcePtr base, model(task->base_version));
    ECOPIPE_ASSIGN_OR_RETURN(Intake::Announced announced,
                             intake_.announce({.task = slice.sequence,
                                               .base_version = task->base_version,
                                               .base = std::move(base),
                                               .samples = sites_.at(cluster).facts.samples},
                                              slice));
    if (announced.reason.empty()) return Answer(std::move(announced));
    ECOPIPE_RETURN_IF_ERROR(reject(cluster, slice, announced.reason));
    return Answer();
}

Result<Federation::Taken> Federation::chunk(const std::string& cluster, const UpdateChunk& chunk,
                                            std::span<const std::byte> bytes) {
    Taken taken;
    const OwnWork working(clock_);
    const OpenTask* task = tasks_.find_of(cluster, chunk.sequence);
    if (task == nullptr) return taken;
    ECOPIPE_ASSIGN_OR_RETURN(const Intake::Progress progress,
                             intake_.chunk(chunk.sequence, chunk.slice, chunk.offset, bytes));
    if (!progress.known) return taken;
    taken.known = true;
    taken.left = progress.left;
    ledger_.note_bytes(bytes.size());
    if (progress.no_room) {
        taken.no_room = true;
        intake_.abandon(chunk.sequence);
    } else if (!progress.reason.empty()) {
        taken.over = true;
        UpdateSlice slice;
        slice.sequence = chunk.sequence;
        slice.base_version = task->base_version;
        ECOPIPE_RETURN_IF_ERROR(reject(cluster, slice, progress.reason));
    } else if (progress.complete) {
        taken.over = true;
        ECOPIPE_RETURN_IF_ERROR(admit_update(cluster, *progress.complete));
    }
    return taken;
}

Result<void> Federation::reject(const std::string& cluster, const UpdateSlice& slice,
                                const std::string& reason) {
    intake_.abandon(slice.sequence);
    UpdateRow row;
    row.task = slice.sequence;
    row.cluster = cluster;
    row.base_version = slice.base_version;
    row.samples = std::min(slice.samples, std::uint64_t{INT64_MAX});
    row.claimed = row.samples;
    row.state = UpdateState::kRejected;
    row.reason = reason;
    ECOPIPE_RETURN_IF_ERROR(journal_.add_update(row));
    ECOPIPE_RETURN_IF_ERROR(count_rejection(cluster, slice.sequence, reason));
    return feed(strategy_event::Failed{.cluster = cluster, .reason = reason});
}

// A task of another server's life, or an invented one, whose row in the journal may be another
// cluster's. The task that the cluster does have stays open unless this puts it in quarantine.
Result<void> Federation::refuse_unknown(const std::string& cluster, std::uint64_t task) {
    const std::string reason = fmt::format("task {} is not this cluster's", task);
    if (!sites_.is_news(cluster, task)) {  // another slice of it
        send_verdict(cluster, task, false, reason);
        return {};
    }
    ECOPIPE_RETURN_IF_ERROR(count_rejection(cluster, task, reason));
    const Site& s = sites_.at(cluster);
    if (!s.record.quarantined || s.task == 0) {
        ledger_.note_rejected(cluster, reason);
        return {};
    }
    intake_.abandon(s.task);
    return feed(strategy_event::Failed{.cluster = cluster, .reason = reason});
}

Result<void> Federation::count_rejection(const std::string& cluster, std::uint64_t task,
                                         const std::string& reason) {
    const bool now_quarantined =
        sites_.count_rejection(cluster, reason, options_.limits.quarantine_after);
    const Site& s = sites_.at(cluster);
    ECOPIPE_RETURN_IF_ERROR(journal_.set_site(s.record));
    log_warn("rejected the update of {} for task {}: {}{}", cluster, task, reason,
             now_quarantined ? "; the cluster is in quarantine now" : "");
    send_verdict(cluster, task, false, reason);
    // It leaves before its task goes back, or the strategy would give it the next one.
    if (now_quarantined && s.joined) return feed(strategy_event::Left{cluster});
    return {};
}

Result<void> Federation::admit_update(const std::string& cluster, const CompleteUpdate& update) {
    const UpdateSlice& slice = update.first;
    const OpenTask task = *tasks_.find(slice.sequence);
    UpdateRow row;
    row.task = slice.sequence;
    row.cluster = cluster;
    row.base_version = task.base_version;
    // Cut here, once: the journal and the strategy, and so every fold, know this number alone.
    row.samples = std::min(slice.samples, sites_.samples_most(options_.limits.weight_max));
    row.claimed = slice.samples;
    row.measure = update.measure;
    row.sha256 = update.sha256;
    row.spool = update.spool;
    row.slice_bytes = update.slice_bytes;
    row.train_loss = slice.train_loss;
    row.seconds = slice.seconds;
    row.eval_samples = std::min(slice.eval_samples, options_.limits.samples_max);
    row.eval_loss = slice.eval_loss;
    row.eval_accuracy = slice.eval_accuracy;
    ECOPIPE_RETURN_IF_ERROR(journal_.add_update(row));
    unsaved_.spool_files = true;
    if (sites_.end_row(cluster))
        ECOPIPE_RETURN_IF_ERROR(journal_.set_site(sites_.at(cluster).record));
    ClientFacts facts = sites_.at(cluster).facts;
    facts.samples = row.samples;
    facts.latency_s = clock_.now_s() - task.assigned_s;
    const std::uint64_t staleness = version() - task.base_version;
    const double norm = std::sqrt(update.measure.squared_norm);
    const double clip = aggregator_->clip_factor(update.measure);
    log_info(
        "update of {} for task {}: {} samples{}, loss {:.4f}, {:.1f} s, norm {:.3g}{}, {} behind",
        cluster, slice.sequence, slice.samples,
        row.samples < slice.samples ? fmt::format(" counted as {}", row.samples) : "",
        slice.train_loss, facts.latency_s, norm,
        clip < 1 ? fmt::format(" clipped to {:g}", aggregator_->norm_clip()) : "", staleness);
    send_verdict(cluster, slice.sequence, true, "");
    return feed(strategy_event::Admitted{.facts = std::move(facts),
                                         .sequence = slice.sequence,
                                         .base_version = task.base_version,
                                         .staleness = staleness});
}

// ---- what the strategy decides

Result<void> Federation::obey(const StrategyDecisions& decisions) {
    for (const StrategyDecision& decision : decisions) {
        if (const auto* task = std::get_if<strategy_decision::Assign>(&decision)) {
            ECOPIPE_RETURN_IF_ERROR(assign(*task));
        } else if (const auto* f = std::get_if<Fold>(&decision)) {
            ECOPIPE_RETURN_IF_ERROR(fold(*f));
        } else if (const auto* drop = std::get_if<strategy_decision::Drop>(&decision)) {
            ledger_.note_dropped(drop->cluster, drop->reason);
            ECOPIPE_RETURN_IF_ERROR(journal_.set_dropped(drop->sequence, drop->reason));
        } else if (const auto* move = std::get_if<strategy_decision::Group>(&decision)) {
            sites_.move(move->cluster, move->to);
            if (!replaying_)
                log_info("cluster {} goes from group {} to {}", move->cluster, move->from,
                         move->to);
        } else if (const auto* made = std::get_if<strategy_decision::Commit>(&decision)) {
            ECOPIPE_RETURN_IF_ERROR(commit(*made));
        } else if (const auto* wake = std::get_if<strategy_decision::Wake>(&decision)) {
            clock_.wake_at(wake->at_s);
        }
    }
    return {};
}

Result<void> Federation::assign(const strategy_decision::Assign& assign) {
    if (tasks_.empty()) ledger_.start(clock_.now_s());
    const std::uint64_t number =
        tasks_.open(assign.cluster, assign.group, version(), clock_.now_s());
    sites_.assign(assign.cluster, number, assign.group);
    send_task(number);
    return {};
}

void Federation::send_task(std::uint64_t number) {
    const OpenTask* task = tasks_.find(number);
    if (replaying_ || clock_.paused() || task == nullptr) return;
    if (!sites_.at(task->cluster).connected) return;  // it gets it when it says Hello
    outgoing_.push_back(
        outgoing::SendTask{task->cluster, Task{.sequence = number,
                                               .round = task->base_version + 1,
                                               .base_version = task->base_version,
                                               .client = options_.client,
                                               .tensors = entries_,
                                               .sha256 = tasks_.sha256_of(task->base_version),
                                               .epoch = epoch_,
                                               .repeat = task->repeat}});
}

void Federation::send_verdict(const std::string& cluster, std::uint64_t task, bool accepted,
                              const std::string& reason) {
    outgoing_.push_back(outgoing::SendVerdict{
        cluster, Verdict{.sequence = task, .accepted = accepted, .reason = reason}});
}

Result<void> Federation::fold(const Fold& fold) {
    const OwnWork working(clock_);
    ECOPIPE_ASSIGN_OR_RETURN(const auto row, journal_.update(fold.sequence));
    if (!row || row->cluster != fold.cluster)
        return fail(ExitCode::kRunFailed,
                    fmt::format("strategy {} uses update {} of {}, which is not "
                                "there",
                                strategy_->name(), fold.sequence, fold.cluster));
    ECOPIPE_ASSIGN_OR_RETURN(
        const CheckedUpdate update,
        open_spooled(spool_, row->spool, row->slice_bytes, row->base_version, row->measure));
    ECOPIPE_RETURN_IF_ERROR(aggregator_->fold(fold, update));
    ECOPIPE_ASSIGN_OR_RETURN(const std::uint64_t id, journal_.add_fold(fold.sequence, fold.cluster,
                                                                       fold.slot, fold.weight));
    static_cast<void>(id);
    return {};
}

// ---- what is seen

FederationView Federation::view() const {
    FederationView view;
    view.strategy = strategy_->name();
    view.phase = finished()        ? "finished"
                 : clock_.paused() ? "paused"
                 : finish_from_    ? "finishing"
                 : disk_is_low()   ? "disk full"
                                   : "running";
    view.version = version();
    view.rounds = options_.rounds;
    view.clock_s = clock_.now_s();
    view.best_score = ledger_.best_score();
    view.best_version = ledger_.best_version();
    view.uploads = intake_.under_way();
    view.free_bytes = spool_.free_bytes();
    view.sites = sites_.view();
    for (SiteView& site : view.sites)
        if (const OpenTask* task = tasks_.find(site.task)) site.base_version = task->base_version;
    view.recent.assign(ledger_.recent().begin(), ledger_.recent().end());
    return view;
}

}  // namespace ecopipe
