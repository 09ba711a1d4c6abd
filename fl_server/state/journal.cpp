#include "fl_server/state/journal.h"

#include <fmt/format.h>

namespace ecopipe {
namespace {

constexpr const char* kSchema = R"(
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE versions(version INTEGER PRIMARY KEY, grp INTEGER NOT NULL, sha256 TEXT NOT NULL,
    recipe TEXT NOT NULL, fold_through INTEGER NOT NULL, line TEXT NOT NULL);
CREATE TABLE updates(task INTEGER PRIMARY KEY, cluster TEXT NOT NULL, base_version INTEGER NOT NULL,
    samples INTEGER NOT NULL, claimed INTEGER NOT NULL, squared_norm REAL NOT NULL, parameter_max REAL NOT NULL,
    buffer_max REAL NOT NULL, sha256 TEXT NOT NULL, spool TEXT NOT NULL, slice_bytes TEXT NOT NULL,
    state INTEGER NOT NULL, reason TEXT NOT NULL, train_loss REAL NOT NULL, seconds REAL NOT NULL,
    eval_samples INTEGER NOT NULL, eval_loss REAL NOT NULL, eval_accuracy REAL NOT NULL);
CREATE INDEX updates_spooled ON updates(task) WHERE spool <> '';
CREATE TABLE folds(id INTEGER PRIMARY KEY, task INTEGER NOT NULL, cluster TEXT NOT NULL,
    slot INTEGER NOT NULL, weight REAL NOT NULL, version INTEGER, UNIQUE(task, slot));
CREATE INDEX folds_version ON folds(version);
CREATE INDEX folds_open ON folds(slot) WHERE version IS NULL;
CREATE TABLE events(id INTEGER PRIMARY KEY, at_s REAL NOT NULL, body TEXT NOT NULL);
CREATE TABLE snapshot(id INTEGER PRIMARY KEY CHECK(id = 1), body TEXT NOT NULL);
CREATE TABLE sites(cluster TEXT PRIMARY KEY, rejections INTEGER NOT NULL, in_a_row INTEGER NOT NULL,
    quarantined INTEGER NOT NULL, reason TEXT NOT NULL) WITHOUT ROWID;
)";

#define ECOPIPE_UPDATE_COLUMNS                                                                 \
    "task, cluster, base_version, samples, claimed, squared_norm, parameter_max, buffer_max, " \
    "sha256, "                                                                                 \
    "spool, slice_bytes, state, reason, train_loss, seconds, eval_samples, eval_loss, "        \
    "eval_accuracy"

// The strategy's JSON goes through text: shortest decimals that read back to the same doubles.
Result<Json> parse(const std::string& text) { return parse_json(text, "journal"); }

}  // namespace

Result<Journal> Journal::open(const std::string& path, bool read_only) {
    ECOPIPE_ASSIGN_OR_RETURN(Database database, Database::open(path, read_only));
    std::int64_t schema = 0;
    bool empty = false;
    {
        Statement version = database.statement("PRAGMA user_version");
        auto row = version.step();
        if (!row) return fail(ExitCode::kBadFile, path + ": " + row.error().message);
        schema = version.integer(0);
        Statement tables = database.statement("SELECT count(*) FROM sqlite_master");
        row = tables.step();
        if (!row) return fail(ExitCode::kBadFile, path + ": " + row.error().message);
        empty = tables.integer(0) == 0;
    }
    if (schema == 0 && empty && !read_only) {
        ECOPIPE_RETURN_IF_ERROR(database.execute(
            fmt::format("BEGIN; {} PRAGMA user_version = {}; COMMIT", kSchema, kJournalSchema)));
    } else if (schema != kJournalSchema) {
        return fail(ExitCode::kMismatch, fmt::format("{}: expected journal schema {}, found {}",
                                                     path, kJournalSchema, schema));
    }
    return Journal(std::move(database));
}

Result<void> Journal::begin() { return database_.execute("BEGIN IMMEDIATE"); }
Result<void> Journal::commit() { return database_.execute("COMMIT"); }
void Journal::rollback() { static_cast<void>(database_.execute("ROLLBACK")); }

Result<std::optional<std::string>> Journal::meta(const std::string& key) {
    Statement s = database_.statement("SELECT value FROM meta WHERE key = ?");
    ECOPIPE_ASSIGN_OR_RETURN(const bool found, s.bind(key).step());
    if (!found) return std::optional<std::string>();
    return std::optional(s.text(0));
}
Result<void> Journal::set_meta(const std::string& key, const std::string& value) {
    return database_.statement("INSERT OR REPLACE INTO meta VALUES(?, ?)")
        .bind(key)
        .bind(value)
        .run();
}

Result<void> Journal::remove_meta(const std::string& key) {
    return database_.statement("DELETE FROM meta WHERE key = ?").bind(key).run();
}

Result<void> Journal::add_update(const UpdateRow& row) {
    return database_
        .statement("INSERT INTO updates(" ECOPIPE_UPDATE_COLUMNS
                   ") VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(row.task)
        .bind(row.cluster)
        .bind(row.base_version)
        .bind(row.samples)
        .bind(row.claimed)
        .bind(row.measure.squared_norm)
        .bind(row.measure.parameter_max)
        .bind(row.measure.buffer_max)
        .bind(row.sha256)
        .bind(row.spool)
        .bind(row.slice_bytes)
        .bind(static_cast<int>(row.state))
        .bind(row.reason)
        .bind(row.train_loss)
        .bind(row.seconds)
        .bind(row.eval_samples)
        .bind(row.eval_loss)
        .bind(row.eval_accuracy)
        .run();
}

UpdateRow Journal::read_update(const Statement& s) {
    return {
        .task = s.number(0),
        .cluster = s.text(1),
        .base_version = s.number(2),
        .samples = s.number(3),
        .claimed = s.number(4),
        .measure = {.squared_norm = s.real(5), .parameter_max = s.real(6), .buffer_max = s.real(7)},
        .sha256 = s.text(8),
        .spool = s.text(9),
        .slice_bytes = s.text(10),
        .state = static_cast<UpdateState>(s.integer(11)),
        .reason = s.text(12),
        .train_loss = s.real(13),
        .seconds = s.real(14),
        .eval_samples = s.number(15),
        .eval_loss = s.real(16),
        .eval_accuracy = s.real(17)};
}

Result<std::optional<UpdateRow>> Journal::update(std::uint64_t task) {
    Statement s =
        database_.statement("SELECT " ECOPIPE_UPDATE_COLUMNS " FROM updates WHERE task = ?");
    ECOPIPE_ASSIGN_OR_RETURN(const bool found, s.bind(task).step());
    if (!found) return std::optional<UpdateRow>();
    return std::optional(read_update(s));
}

Result<void> Journal::set_dropped(std::uint64_t task, const std::string& reason) {
    return database_.statement("UPDATE updates SET state = ?, reason = ? WHERE task = ?")
        .bind(static_cast<int>(UpdateState::kDropped))
        .bind(reason)
        .bind(task)
        .run();
}

Result<std::vector<UpdateRow>> Journal::read_updates(Statement& s) {
    std::vector<UpdateRow> rows;
    for (;;) {
        ECOPIPE_ASSIGN_OR_RETURN(const bool more, s.step());
        if (!more) return rows;
        rows.push_back(read_update(s));
    }
}

Result<std::vector<UpdateRow>> Journal::finished_updates() {
    Statement s = database_.statement(
        "SELECT " ECOPIPE_UPDATE_COLUMNS
        " FROM updates u WHERE spool <> '' AND NOT EXISTS (SELECT 1 FROM folds f WHERE f.task = "
        "u.task AND f.version IS NULL) AND (state <> 0 OR EXISTS (SELECT 1 FROM folds f WHERE "
        "f.task = u.task)) ORDER BY task");
    return read_updates(s);
}

Result<std::vector<std::uint64_t>> Journal::open_bases() {
    Statement s = database_.statement(
        "SELECT DISTINCT base_version FROM updates u WHERE state = 0 AND spool <> '' AND (EXISTS "
        "(SELECT 1 FROM folds f WHERE f.task = u.task AND f.version IS NULL) OR NOT EXISTS (SELECT "
        "1 FROM folds f WHERE f.task = u.task))");
    std::vector<std::uint64_t> versions;
    for (;;) {
        ECOPIPE_ASSIGN_OR_RETURN(const bool more, s.step());
        if (!more) return versions;
        versions.push_back(s.number(0));
    }
}

Result<std::vector<UpdateRow>> Journal::updates_in(std::uint64_t version) {
    Statement s = database_.statement("SELECT " ECOPIPE_UPDATE_COLUMNS
                                      " FROM updates WHERE task IN (SELECT task FROM folds WHERE "
                                      "version = ?) ORDER BY task");
    s.bind(version);
    return read_updates(s);
}

Result<void> Journal::forget_spool(std::uint64_t task) {
    return database_.statement("UPDATE updates SET spool = '' WHERE task = ?").bind(task).run();
}

Result<std::uint64_t> Journal::add_fold(std::uint64_t task, const std::string& cluster,
                                        std::uint32_t slot, double weight) {
    {
        Statement known = database_.statement("SELECT id FROM folds WHERE task = ? AND slot = ?");
        ECOPIPE_ASSIGN_OR_RETURN(const bool found, known.bind(task).bind(slot).step());
        if (found) return known.number(0);
    }
    ECOPIPE_RETURN_IF_ERROR(
        database_.statement("INSERT INTO folds(task, cluster, slot, weight) VALUES(?, ?, ?, ?)")
            .bind(task)
            .bind(cluster)
            .bind(slot)
            .bind(weight)
            .run());
    return last_fold();
}

Result<void> Journal::close_folds(const std::vector<std::uint32_t>& slots, std::uint64_t version) {
    for (const std::uint32_t slot : slots)
        ECOPIPE_RETURN_IF_ERROR(
            database_.statement("UPDATE folds SET version = ? WHERE slot = ? AND version IS NULL")
                .bind(version)
                .bind(slot)
                .run());
    return {};
}

FoldRow Journal::read_fold(const Statement& s) {
    return {.id = s.number(0),
            .task = s.number(1),
            .cluster = s.text(2),
            .slot = static_cast<std::uint32_t>(s.number(3)),
            .weight = s.real(4)};
}

Result<std::vector<FoldRow>> Journal::open_folds(std::uint64_t through) {
    Statement s = database_.statement(
        "SELECT id, task, cluster, slot, weight FROM folds WHERE version IS NULL AND id <= ? ORDER "
        "BY id");
    s.bind(through);
    std::vector<FoldRow> rows;
    for (;;) {
        ECOPIPE_ASSIGN_OR_RETURN(const bool more, s.step());
        if (!more) return rows;
        rows.push_back(read_fold(s));
    }
}

Result<std::vector<FoldRow>> Journal::folds(std::uint64_t after, std::uint64_t through) {
    Statement s = database_.statement(
        "SELECT id, task, cluster, slot, weight FROM folds WHERE id > ? AND id <= ? ORDER BY id");
    s.bind(after).bind(through);
    std::vector<FoldRow> rows;
    for (;;) {
        ECOPIPE_ASSIGN_OR_RETURN(const bool more, s.step());
        if (!more) return rows;
        rows.push_back(read_fold(s));
    }
}

Result<std::uint64_t> Journal::last_fold() {
    Statement s = database_.statement("SELECT max(id) FROM folds");
    ECOPIPE_RETURN_IF_ERROR(s.step());
    return s.number(0);
}

Result<void> Journal::add_version(const VersionRow& row) {
    return database_.statement("INSERT INTO versions VALUES(?, ?, ?, ?, ?, ?)")
        .bind(row.version)
        .bind(row.group)
        .bind(row.sha256)
        .bind(row.recipe.dump())
        .bind(row.fold_through)
        .bind(row.line)
        .run();
}
Result<void> Journal::set_line(std::uint64_t version, const std::string& line) {
    return database_.statement("UPDATE versions SET line = ? WHERE version = ?")
        .bind(line)
        .bind(version)
        .run();
}
Result<std::vector<VersionRow>> Journal::versions() {
    Statement s = database_.statement(
        "SELECT version, grp, sha256, recipe, fold_through, line FROM versions ORDER BY version");
    std::vector<VersionRow> rows;
    for (;;) {
        ECOPIPE_ASSIGN_OR_RETURN(const bool more, s.step());
        if (!more) return rows;
        VersionRow row{.version = s.number(0),
                       .group = static_cast<std::uint32_t>(s.number(1)),
                       .sha256 = s.text(2),
                       .recipe = {},
                       .fold_through = s.number(4),
                       .line = s.text(5)};
        ECOPIPE_ASSIGN_OR_RETURN(row.recipe, parse(s.text(3)));
        rows.push_back(std::move(row));
    }
}

Result<std::uint64_t> Journal::last_version() {
    Statement s = database_.statement("SELECT max(version) FROM versions");
    ECOPIPE_RETURN_IF_ERROR(s.step());
    return s.number(0);
}
Result<std::optional<std::string>> Journal::sha256_of(std::uint64_t version) {
    Statement s = database_.statement("SELECT sha256 FROM versions WHERE version = ?");
    ECOPIPE_ASSIGN_OR_RETURN(const bool found, s.bind(version).step());
    if (!found) return std::optional<std::string>();
    return std::optional(s.text(0));
}
Result<void> Journal::each_line(
    std::uint64_t first,
    const std::function<Result<bool>(std::uint64_t version, const std::string& line)>& take) {
    Statement s = database_.statement(
        "SELECT version, line FROM versions WHERE version >= ? ORDER BY version");
    s.bind(first);
    for (;;) {
        ECOPIPE_ASSIGN_OR_RETURN(const bool more, s.step());
        if (!more) return {};
        ECOPIPE_ASSIGN_OR_RETURN(const bool on, take(s.number(0), s.text(1)));
        if (!on) return {};
    }
}

Result<void> Journal::add_event(double at_s, const Json& body) {
    return database_.statement("INSERT INTO events(at_s, body) VALUES(?, ?)")
        .bind(at_s)
        .bind(body.dump())
        .run();
}
Result<std::vector<Journal::Event>> Journal::events() {
    Statement s = database_.statement("SELECT at_s, body FROM events ORDER BY id");
    std::vector<Event> events;
    for (;;) {
        ECOPIPE_ASSIGN_OR_RETURN(const bool more, s.step());
        if (!more) return events;
        ECOPIPE_ASSIGN_OR_RETURN(Json body, parse(s.text(1)));
        events.push_back({s.real(0), std::move(body)});
    }
}
Result<void> Journal::set_snapshot(const Json& body) {
    ECOPIPE_RETURN_IF_ERROR(database_.statement("DELETE FROM events").run());
    return database_.statement("INSERT OR REPLACE INTO snapshot VALUES(1, ?)")
        .bind(body.dump())
        .run();
}
Result<std::optional<Json>> Journal::snapshot() {
    Statement s = database_.statement("SELECT body FROM snapshot");
    ECOPIPE_ASSIGN_OR_RETURN(const bool found, s.step());
    if (!found) return std::optional<Json>();
    ECOPIPE_ASSIGN_OR_RETURN(Json body, parse(s.text(0)));
    return std::optional(std::move(body));
}

Result<void> Journal::set_site(const SiteRow& row) {
    return database_.statement("INSERT OR REPLACE INTO sites VALUES(?, ?, ?, ?, ?)")
        .bind(row.cluster)
        .bind(row.rejections)
        .bind(row.in_a_row)
        .bind(row.quarantined ? 1 : 0)
        .bind(row.reason)
        .run();
}
Result<std::vector<SiteRow>> Journal::sites() {
    Statement s = database_.statement(
        "SELECT cluster, rejections, in_a_row, quarantined, reason FROM sites ORDER BY cluster");
    std::vector<SiteRow> rows;
    for (;;) {
        ECOPIPE_ASSIGN_OR_RETURN(const bool more, s.step());
        if (!more) return rows;
        rows.push_back({.cluster = s.text(0),
                        .rejections = s.number(1),
                        .in_a_row = s.number(2),
                        .quarantined = s.integer(3) != 0,
                        .reason = s.text(4)});
    }
}

Result<void> Journal::backup_to(const std::string& path, const std::vector<std::string>& forget) {
    ECOPIPE_RETURN_IF_ERROR(database_.backup_to(path));
    ECOPIPE_ASSIGN_OR_RETURN(Journal copy, Journal::open(path));
    for (const std::string& key : forget) ECOPIPE_RETURN_IF_ERROR(copy.remove_meta(key));
    return {};
}

}  // namespace ecopipe
