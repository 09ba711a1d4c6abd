#pragma once
// What a federation must not forget, in journal.sqlite: every version and how it came about, every
// update and what became of it, and the strategy's inputs since its last snapshot. One thread.
//
// Callers put what belongs together between `begin` and `commit`; only a committed transaction
// counts. The schema's number is checked at opening.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"
#include "core/strict_json.h"
#include "fl_server/state/database.h"
#include "fl_server/state/journal_rows.h"

namespace ecopipe {

inline constexpr int kJournalSchema = 2;

class Journal {
  public:
    // Creates what is not there. Errors: kMismatch for another schema (5); kBadFile for what is no
    // journal.
    [[nodiscard]] static Result<Journal> open(const std::string& path, bool read_only = false);

    [[nodiscard]] Result<void> begin();
    [[nodiscard]] Result<void> commit();
    void rollback();

    [[nodiscard]] Result<std::optional<std::string>> meta(const std::string& key);
    [[nodiscard]] Result<void> set_meta(const std::string& key, const std::string& value);
    [[nodiscard]] Result<void> remove_meta(const std::string& key);

    // Updates. A task has at most one row.
    [[nodiscard]] Result<void> add_update(const UpdateRow& row);
    [[nodiscard]] Result<std::optional<UpdateRow>> update(std::uint64_t task);
    [[nodiscard]] Result<void> set_dropped(std::uint64_t task, const std::string& reason);
    // Admitted or dropped updates whose files are still there and which no open fold needs, and
    // that are either dropped or in a version.
    [[nodiscard]] Result<std::vector<UpdateRow>> finished_updates();
    [[nodiscard]] Result<void> forget_spool(std::uint64_t task);

    // Folds are written when they are decided; a repeated decision after a restart finds its row.
    [[nodiscard]] Result<std::uint64_t> add_fold(std::uint64_t task, const std::string& cluster,
                                                 std::uint32_t slot, double weight);
    [[nodiscard]] Result<void> close_folds(const std::vector<std::uint32_t>& slots,
                                           std::uint64_t version);
    [[nodiscard]] Result<std::vector<FoldRow>> open_folds(std::uint64_t through);
    // In order, with ids in (after, through].
    [[nodiscard]] Result<std::vector<FoldRow>> folds(std::uint64_t after, std::uint64_t through);
    [[nodiscard]] Result<std::uint64_t> last_fold();
    // Base versions of admitted updates that are not in a version yet.
    [[nodiscard]] Result<std::vector<std::uint64_t>> open_bases();
    // The updates whose folds a version closed, each once, by task.
    [[nodiscard]] Result<std::vector<UpdateRow>> updates_in(std::uint64_t version);

    [[nodiscard]] Result<void> add_version(const VersionRow& row);
    [[nodiscard]] Result<void> set_line(std::uint64_t version, const std::string& line);
    [[nodiscard]] Result<std::vector<VersionRow>> versions();
    [[nodiscard]] Result<std::uint64_t> last_version();
    [[nodiscard]] Result<std::optional<std::string>> sha256_of(std::uint64_t version);
    // The lines of versions from `first` on, one at a time, until `take` says false.
    [[nodiscard]] Result<void> each_line(
        std::uint64_t first,
        const std::function<Result<bool>(std::uint64_t version, const std::string& line)>& take);

    // The strategy's inputs since the snapshot.
    struct Event {
        double at_s = 0;
        Json body;
    };
    [[nodiscard]] Result<void> add_event(double at_s, const Json& body);
    [[nodiscard]] Result<std::vector<Event>> events();
    // Replaces the snapshot; the events so far are in it and go.
    [[nodiscard]] Result<void> set_snapshot(const Json& body);
    [[nodiscard]] Result<std::optional<Json>> snapshot();

    [[nodiscard]] Result<void> set_site(const SiteRow& row);
    [[nodiscard]] Result<std::vector<SiteRow>> sites();

    // Without what `forget` names of `meta`.
    [[nodiscard]] Result<void> backup_to(const std::string& path,
                                         const std::vector<std::string>& forget);

  private:
    explicit Journal(Database database) : database_(std::move(database)) {}
    [[nodiscard]] static UpdateRow read_update(const Statement& row);
    [[nodiscard]] static Result<std::vector<UpdateRow>> read_updates(Statement& statement);
    [[nodiscard]] static FoldRow read_fold(const Statement& row);
    Database database_;
};

}  // namespace ecopipe
