#include "fl_server/state/database.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <map>
#include <utility>

#include "core/check.h"
#include "core/files.h"

namespace ecopipe {

struct Database::Handle {
    std::string path;
    sqlite3* database = nullptr;
    std::map<const char*, sqlite3_stmt*> prepared;
    ~Handle() {
        for (const auto& [sql, statement] : prepared) sqlite3_finalize(statement);
        sqlite3_close(database);
    }
};

namespace {

constexpr int kBusyMs = 5000;  // how long a reader's backup may hold us up

tl::unexpected<Error> failure(sqlite3* database, const std::string& doing) {
    return fail(
        ExitCode::kRunFailed,
        fmt::format("journal: {}: {}", doing, database ? sqlite3_errmsg(database) : "no memory"));
}

}  // namespace

Statement::~Statement() {
    if (statement_ == nullptr) return;
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
}
Statement::Statement(Statement&& other) noexcept
    : database_(other.database_),
      statement_(std::exchange(other.statement_, nullptr)),
      error_(std::move(other.error_)),
      next_parameter_(other.next_parameter_) {}

Statement& Statement::bind(std::int64_t value) {
    if (statement_ == nullptr) return *this;
    ECOPIPE_CHECK(sqlite3_bind_int64(statement_, next_parameter_++, value) == SQLITE_OK);
    return *this;
}
Statement& Statement::bind(double value) {
    if (statement_ == nullptr) return *this;
    ECOPIPE_CHECK(sqlite3_bind_double(statement_, next_parameter_++, value) == SQLITE_OK);
    return *this;
}
Statement& Statement::bind(std::string_view value) {
    if (statement_ == nullptr) return *this;
    // SQLITE_TRANSIENT, which is an old-style cast of -1: SQLite copies the text.
    const auto copy = reinterpret_cast<sqlite3_destructor_type>(std::intptr_t{-1});
    ECOPIPE_CHECK(sqlite3_bind_text(statement_, next_parameter_++, value.data(),
                                    static_cast<int>(value.size()), copy) == SQLITE_OK);
    return *this;
}
Statement& Statement::bind_null() {
    if (statement_ == nullptr) return *this;
    ECOPIPE_CHECK(sqlite3_bind_null(statement_, next_parameter_++) == SQLITE_OK);
    return *this;
}

Result<bool> Statement::step() {
    if (statement_ == nullptr) return fail(ExitCode::kBadFile, error_);
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    return failure(database_, sqlite3_sql(statement_));
}
Result<void> Statement::run() {
    for (;;) {
        ECOPIPE_ASSIGN_OR_RETURN(const bool more, step());
        if (!more) return {};
    }
}

std::int64_t Statement::integer(int column) const {
    return sqlite3_column_int64(statement_, column);
}
double Statement::real(int column) const { return sqlite3_column_double(statement_, column); }
std::string Statement::text(int column) const {
    const auto* text = sqlite3_column_text(statement_, column);
    return text == nullptr
               ? std::string()
               : std::string(reinterpret_cast<const char*>(text),
                             static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
}
bool Statement::null(int column) const {
    return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

Database::Database(std::unique_ptr<Handle> handle) : handle_(std::move(handle)) {}
Database::Database(Database&&) noexcept = default;
Database& Database::operator=(Database&&) noexcept = default;
Database::~Database() = default;

Result<Database> Database::open(const std::string& path, bool read_only) {
    auto handle = std::make_unique<Handle>();
    handle->path = path;
    if (!read_only)
        if (const auto made = make_private_file(path); !made)
            return fail(ExitCode::kBadFile, made.error().message);
    const int flags =
        (read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) |
        SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path.c_str(), &handle->database, flags, nullptr) != SQLITE_OK)
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: {}", path,
                                handle->database ? sqlite3_errmsg(handle->database) : "no memory"));
    sqlite3_busy_timeout(handle->database, kBusyMs);
    // A file may be damaged, or made to harm: nothing in its schema runs, and it cannot be written
    // to except by our statements.
    sqlite3_db_config(handle->database, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
    sqlite3_db_config(handle->database, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
    sqlite3_db_config(handle->database, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
    sqlite3_db_config(handle->database, SQLITE_DBCONFIG_ENABLE_VIEW, 0, nullptr);
    Database database(std::move(handle));
    if (!read_only)
        for (const char* setting : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"})
            if (const auto set = database.execute(setting); !set)
                return fail(ExitCode::kBadFile, path + ": " + set.error().message);
    return database;
}

Result<void> Database::execute(const std::string& sql) {
    if (sqlite3_exec(handle_->database, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK)
        return failure(handle_->database, sql.substr(0, 60));
    return {};
}

Statement Database::statement(const char* sql) {
    sqlite3_stmt*& prepared = handle_->prepared[sql];
    if (prepared == nullptr &&
        sqlite3_prepare_v3(handle_->database, sql, -1, SQLITE_PREPARE_PERSISTENT, &prepared,
                           nullptr) != SQLITE_OK)
        return {handle_->database, nullptr,
                fmt::format("journal: {}", sqlite3_errmsg(handle_->database))};
    return Statement(handle_->database, prepared);
}

Result<void> Database::backup_to(const std::string& path) {
    ECOPIPE_RETURN_IF_ERROR(make_private_file(path));
    sqlite3* target = nullptr;
    const bool opened = sqlite3_open(path.c_str(), &target) == SQLITE_OK;
    const std::unique_ptr<sqlite3, decltype(&sqlite3_close)> closer(target, sqlite3_close);
    if (!opened) return failure(target, path);
    sqlite3_backup* backup = sqlite3_backup_init(target, "main", handle_->database, "main");
    if (backup == nullptr) return failure(target, path);
    const int code = sqlite3_backup_step(backup, -1);
    sqlite3_backup_finish(backup);
    if (code != SQLITE_DONE) return failure(target, path);
    return {};
}

}  // namespace ecopipe
