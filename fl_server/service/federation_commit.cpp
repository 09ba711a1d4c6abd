// How a Federation makes a version: aggregation, files, journal, the line of rounds.jsonl.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>

#include "core/log.h"
#include "fl_server/service/federation.h"
#include "fl_server/strategies/decision_json.h"

namespace ecopipe {
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
    ECOPIPE_ASSIGN_OR_RETURN(const auto updates, journal_.updates_in(made.version));
    if (!options_.evaluate) ECOPIPE_RETURN_IF_ERROR(judge_by_clients(updates));
    row.line = ledger_.close(made.version, clock_.now_s(), strategy_->name(), commit, updates);
    ECOPIPE_RETURN_IF_ERROR(journal_.add_version(row));
    unsaved_.version = true;
    return {};
}

Result<void> Federation::judge_by_clients(const std::vector<UpdateRow>& updates) {
    if (!sites_.take_tests(updates)) {
        if (sites_.take_untested())
            log_warn(
                "no cluster tests the models that it gets (--no-evaluation, or no test data), and "
                "there is no --eval-data: no model is called the best");
        return {};
    }
    const auto best =
        ledger_.take_verdict(sites_.newest_tests(), options_.limits.weight_max,
                             [this](std::uint64_t version) { return models_.has(version); });
    return best ? models_.publish_best(*best) : Result<void>();
}

Result<void> Federation::publish() {
    const AggregatorState& state = aggregator_->state();
    return state.served() == state.global ? models_.publish(state.version)
                                          : models_.publish(*state.served());
}

Result<void> Federation::after_commit() {
    const OwnWork working(clock_);
    const std::uint64_t version = *ledger_.awaited();
    ECOPIPE_RETURN_IF_ERROR(publish());
    std::optional<Evaluation> evaluation;
    if (options_.evaluate) {
        ECOPIPE_ASSIGN_OR_RETURN(evaluation, options_.evaluate(*aggregator_->state().served()));
    }
    const RoundLedger::Told told = ledger_.tell(evaluation);
    const double accuracy = told.round.accuracy;
    if (told.is_best) ECOPIPE_RETURN_IF_ERROR(models_.publish_best());
    in_turn_ = true;
    ECOPIPE_RETURN_IF_ERROR(journal_.begin());
    ECOPIPE_RETURN_IF_ERROR(journal_.set_line(version, told.line));
    ECOPIPE_RETURN_IF_ERROR(delete_finished());
    if (!finished())
        ECOPIPE_RETURN_IF_ERROR(
            feed(strategy_event::Committed{.version = version, .accuracy = accuracy}));
    // No event tells it: without it the first version after a restart would be the best.
    if (told.is_best) ECOPIPE_RETURN_IF_ERROR(save_snapshot());
    ECOPIPE_RETURN_IF_ERROR(end_turn());
    log_info("round {} done{}", version,
             accuracy < 0 ? ""
                          : fmt::format(", accuracy{} {:.2f} %",
                                        evaluation ? "" : " of the model before", 100 * accuracy));
    ledger_.show(told.round);
    // The journal has it; what a full disk has no room for comes with a later line or a restart.
    if (const auto written = rounds_->append(told.line); !written)
        log_error("{}", written.error().message);
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
