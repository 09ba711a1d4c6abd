#include "fl_server/service/replay.h"

#include <fmt/format.h>

#include <filesystem>

#include "core/log.h"
#include "fl_server/numbers/aggregator.h"
#include "fl_server/service/intake.h"
#include "fl_server/state/journal.h"
#include "fl_server/state/model_store.h"
#include "fl_server/strategies/decision_json.h"

namespace ecopipe {
namespace {

Result<void> replay_version(Journal& journal, const Spool& spool, Aggregator& aggregator,
                            const VersionRow& row, std::uint64_t after, ReplayOutcome& outcome) {
    ECOPIPE_ASSIGN_OR_RETURN(const auto folds, journal.folds(after, row.fold_through));
    for (const FoldRow& fold : folds) {
        ECOPIPE_ASSIGN_OR_RETURN(const auto update, journal.update(fold.task));
        if (!update || update->spool.empty())
            return fail(ExitCode::kBadFile,
                        fmt::format("version {}: the update of {} for task {} was not kept "
                                    "(--keep-updates)",
                                    row.version, fold.cluster, fold.task));
        ECOPIPE_ASSIGN_OR_RETURN(const CheckedUpdate checked,
                                 open_spooled(spool, update->spool, update->slice_bytes,
                                              update->base_version, update->measure));
        ECOPIPE_RETURN_IF_ERROR(aggregator.fold({.cluster = fold.cluster,
                                                 .sequence = fold.task,
                                                 .slot = fold.slot,
                                                 .weight = fold.weight},
                                                checked));
        ++outcome.updates;
    }
    ECOPIPE_ASSIGN_OR_RETURN(const Recipe recipe, recipe_from(row.recipe));
    ECOPIPE_ASSIGN_OR_RETURN(const auto made, aggregator.commit(recipe));
    ++outcome.versions;
    if (made.sha256 == row.sha256) return {};
    ++outcome.different;
    log_error("version {}: expected {}, found {}", row.version, row.sha256, made.sha256);
    return {};
}

}  // namespace

Result<ReplayOutcome> replay_journal(const std::string& state_directory,
                                     const std::string& scratch) {
    ECOPIPE_ASSIGN_OR_RETURN(Journal journal,
                             Journal::open(state_directory + "/journal.sqlite", true));
    ECOPIPE_ASSIGN_OR_RETURN(const auto layout_text, journal.meta("layout"));
    ECOPIPE_ASSIGN_OR_RETURN(const auto clip, journal.meta("identity:norm_clip"));
    if (!layout_text || !clip)
        return fail(ExitCode::kBadFile, state_directory + "/journal.sqlite: names no model");
    ECOPIPE_ASSIGN_OR_RETURN(const Json layout_json, parse_json(*layout_text, "journal"));
    ECOPIPE_ASSIGN_OR_RETURN(const ModelLayout layout, layout_from(layout_json));
    ECOPIPE_ASSIGN_OR_RETURN(const Spool spool, Spool::open(state_directory + "/spool"));
    ECOPIPE_ASSIGN_OR_RETURN(const ModelStore origin, ModelStore::open(state_directory, layout));
    AggregatorState start;
    ECOPIPE_ASSIGN_OR_RETURN(start.global, origin.load(0));
    std::filesystem::remove_all(scratch);
    ECOPIPE_ASSIGN_OR_RETURN(ModelStore made, ModelStore::open(scratch, layout));
    ECOPIPE_RETURN_IF_ERROR(made.write(0, *start.global));
    Aggregator aggregator(
        layout, std::move(start), [&](std::uint64_t version) { return made.source(version); },
        AggregatorOptions{.norm_clip = std::stod(*clip), .threads = 1, .keep_sources = true});
    ReplayOutcome outcome;
    ECOPIPE_ASSIGN_OR_RETURN(const auto versions, journal.versions());
    std::uint64_t after = 0;
    for (const VersionRow& row : versions) {
        if (row.version == 0) continue;
        ECOPIPE_RETURN_IF_ERROR(replay_version(journal, spool, aggregator, row, after, outcome));
        ECOPIPE_RETURN_IF_ERROR(made.write(row.version, *aggregator.state().global));
        after = row.fold_through;
    }
    std::filesystem::remove_all(scratch);
    return outcome;
}

}  // namespace ecopipe
