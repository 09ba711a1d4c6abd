// How a Federation makes a version: aggregation, files, journal, the line of rounds.jsonl.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/log.h"
#include "fl_server/service/federation.h"
#include "fl_server/strategies/decision_json.h"

namespace ecopipe {
namespace {

constexpr std::size_t kRecentRounds = 100;  // that a view shows

}  // namespace

Result<void> Federation::commit(const strategy_decision::Commit& commit) {
    const OwnWork working(clock_);
    ECOPIPE_ASSIGN_OR_RETURN(const Aggregator::Committed made, aggregator_->commit(commit.recipe));
    tasks_.set_sha256(made.version, made.sha256);
    ECOPIPE_RETURN_IF_ERROR(models_.write(made.version, *global()));
    for (const Recipe::Keep& keep : commit.recipe.keep) {
        ECOPIPE_ASSIGN_OR_RETURN(
            kept_files_[keep.name],
            models_.keep(keep.name, made.version, *aggregator_->state().stored.at(keep.name)));
    }
    if (commit.recipe.optimizer) {
        ECOPIPE_ASSIGN_OR_RETURN(kept_files_[""], models_.keep("optimizer", made.version,
                                                               *aggregator_->state().moments));
    }
    VersionRow row;
    row.version = made.version;
    row.group = commit.group;
    row.sha256 = made.sha256;
    row.recipe = recipe_json(commit.recipe);
    ECOPIPE_ASSIGN_OR_RETURN(row.fold_through, journal_.last_fold());
    std::vector<std::uint32_t> slots;
    for (const Recipe::Close& close : commit.recipe.close) slots.push_back(close.slot);
    ECOPIPE_RETURN_IF_ERROR(journal_.close_folds(slots, made.version));
    ECOPIPE_ASSIGN_OR_RETURN(row.line, round_line(commit, made.version));
    ECOPIPE_RETURN_IF_ERROR(journal_.add_version(row));
    rejected_.clear();
    dropped_.clear();
    bytes_in_ = 0;
    round_started_s_ = clock_.now_s();
    awaiting_ = made.version;
    awaiting_line_ = row.line;
    snapshot_due_ = true;
    return {};
}

// What is known when the version is made; an evaluation on the server's data comes later.
Result<std::string> Federation::round_line(const strategy_decision::Commit& commit,
                                           std::uint64_t version) {
    ECOPIPE_ASSIGN_OR_RETURN(const auto updates, journal_.updates_in(version));
    std::uint64_t samples = 0;
    double weight = 0;
    double loss = 0;
    double accuracy = 0;
    OrderedJson tested = OrderedJson::object();
    OrderedJson capped = OrderedJson::object();
    for (const UpdateRow& update : updates) {
        samples += update.samples;
        if (update.samples < update.claimed)
            capped[update.cluster] = {{"samples", update.claimed}, {"counted", update.samples}};
        if (update.eval_samples == 0) continue;
        const auto n = static_cast<double>(update.eval_samples);
        weight += n;
        loss += n * update.eval_loss;
        accuracy += n * update.eval_accuracy;
        tested[update.cluster] = {{"version", update.base_version},
                                  {"samples", update.eval_samples},
                                  {"accuracy", update.eval_accuracy},
                                  {"loss", update.eval_loss}};
    }
    for (const std::string& cluster : commit.late)
        note_rejected(cluster, "no update before the round's deadline");
    OrderedJson line{{"round", version},
                     {"wall_s", clock_.now_s() - round_started_s_},
                     {"strategy", strategy_->name()},
                     {"group", commit.group},
                     {"clusters", commit.clusters},
                     {"samples", samples},
                     {"bytes_in", bytes_in_},
                     {"rejected", rejected_}};
    if (!capped.empty()) line["capped"] = std::move(capped);
    if (!dropped_.empty()) line["dropped"] = dropped_;
    if (weight > 0) {
        line["client_accuracy"] = accuracy / weight;
        line["client_loss"] = loss / weight;
        line["clients"] = std::move(tested);
    }
    if (!options_.evaluate) {
        ECOPIPE_RETURN_IF_ERROR(judge_by_clients(updates));
        if (best_version_ > 0 || best_score_ >= 0) line["best"] = best_version_;
    }
    return line.dump();
}

Result<void> Federation::judge_by_clients(const std::vector<UpdateRow>& updates) {
    if (!sites_.take_tests(updates)) {
        if (sites_.take_untested())
            log_warn(
                "no cluster tests the models that it gets (--no-evaluation, or no test data), and "
                "there is no --eval-data: no model is called the best");
        return {};
    }
    const auto verdict = client_verdict(sites_.newest_tests(), options_.limits.weight_max);
    if (!verdict || verdict->accuracy <= best_score_ || !models_.has(verdict->version)) return {};
    best_score_ = verdict->accuracy;
    best_version_ = verdict->version;
    return models_.publish_best(best_version_);
}

Result<void> Federation::publish() {
    const AggregatorState& state = aggregator_->state();
    return state.served() == state.global ? models_.publish(state.version)
                                          : models_.publish(*state.served());
}

Result<void> Federation::after_commit() {
    const OwnWork working(clock_);
    const std::uint64_t version = *awaiting_;
    ECOPIPE_RETURN_IF_ERROR(publish());
    OrderedJson line = OrderedJson::parse(awaiting_line_);
    double accuracy = -1;
    std::string result;
    bool is_best = false;
    if (options_.evaluate) {
        ECOPIPE_ASSIGN_OR_RETURN(const Evaluation evaluation,
                                 options_.evaluate(*aggregator_->state().served()));
        accuracy = evaluation.accuracy;
        line["accuracy"] = evaluation.accuracy;
        line["loss"] = evaluation.loss;
        result = fmt::format(", accuracy {:.2f} %", 100 * evaluation.accuracy);
        is_best = accuracy > best_score_;
        if (is_best) {
            best_score_ = accuracy;
            best_version_ = version;
            ECOPIPE_RETURN_IF_ERROR(models_.publish_best());
        }
        line["best"] = best_version_;
    } else if (line.contains("client_accuracy")) {
        accuracy = line["client_accuracy"];
        result = fmt::format(", accuracy of the model before {:.2f} %", 100 * accuracy);
    }
    in_turn_ = true;
    ECOPIPE_RETURN_IF_ERROR(journal_.begin());
    const std::string text = line.dump();
    ECOPIPE_RETURN_IF_ERROR(journal_.set_line(version, text));
    ECOPIPE_RETURN_IF_ERROR(delete_finished());
    if (!finished())
        ECOPIPE_RETURN_IF_ERROR(
            feed(strategy_event::Committed{.version = version, .accuracy = accuracy}));
    // No event tells it: without it the first version after a restart would be the best.
    if (is_best) ECOPIPE_RETURN_IF_ERROR(save_snapshot());
    ECOPIPE_RETURN_IF_ERROR(end_turn());
    log_info("round {} done{}", version, result);
    recent_.push_back({.round = version,
                       .wall_s = line["wall_s"],
                       .group = line["group"],
                       .clusters = line["clusters"].size(),
                       .samples = line["samples"],
                       .accuracy = accuracy,
                       .loss = line.value("loss", line.value("client_loss", -1.0)),
                       .rejected = line["rejected"].size()});
    if (recent_.size() > kRecentRounds) recent_.pop_front();
    // The journal has it; what a full disk has no room for comes with a later line or a restart.
    if (const auto told = rounds_->append(text); !told) log_error("{}", told.error().message);
    return {};
}

Result<void> Federation::delete_finished() {
    if (!options_.keep_updates) {
        ECOPIPE_ASSIGN_OR_RETURN(const auto updates, journal_.finished_updates());
        for (const UpdateRow& update : updates) {
            for (std::size_t at = 0; at < update.spool.size();) {
                const std::size_t end = std::min(update.spool.find(' ', at), update.spool.size());
                spool_.remove(update.spool.substr(at, end - at));
                at = end + 1;
            }
            ECOPIPE_RETURN_IF_ERROR(journal_.forget_spool(update.task));
        }
    }
    std::set<std::uint64_t> needed = tasks_.base_versions();
    if (options_.keep_updates) needed.insert(0);  // a replay starts there
    for (std::uint64_t back = 0; back <= options_.keep_models && back <= version(); ++back)
        needed.insert(version() - back);
    ECOPIPE_ASSIGN_OR_RETURN(const auto bases, journal_.open_bases());
    needed.insert(bases.begin(), bases.end());
    models_.prune(needed);
    tasks_.forget_sha256_but(needed);
    std::set<std::string> files;
    for (const auto& [name, file] : kept_files_) files.insert(file);
    models_.prune_kept(files);
    return {};
}

}  // namespace ecopipe
