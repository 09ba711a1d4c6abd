#pragma once
// SQLite with our error model: prepared statements that are bound and stepped, nothing more. Files
// are opened with WAL and synchronous=FULL: a committed transaction survives a power cut. Only
// their owner may read them.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "core/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace ecopipe {

// One use of a prepared statement: bind, then step; gone, it may be used again. Columns and
// parameters count from 0 in the order they stand. One that could not be prepared, because the file
// has no such table or is damaged, takes parameters and says so at the first step.
class Statement {
  public:
    Statement(sqlite3* database, sqlite3_stmt* statement, std::string error = {})
        : database_(database), statement_(statement), error_(std::move(error)) {}
    ~Statement();
    Statement(Statement&& other) noexcept;
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;
    Statement& operator=(Statement&&) = delete;

    Statement& bind(std::int64_t value);
    Statement& bind(std::uint64_t value) { return bind(static_cast<std::int64_t>(value)); }
    Statement& bind(std::uint32_t value) { return bind(static_cast<std::int64_t>(value)); }
    Statement& bind(int value) { return bind(static_cast<std::int64_t>(value)); }
    Statement& bind(double value);
    Statement& bind(std::string_view value);
    Statement& bind_null();
    // True while there is a row. Errors: kRunFailed.
    [[nodiscard]] Result<bool> step();
    [[nodiscard]] Result<void> run();  // to the end, rows ignored

    [[nodiscard]] std::int64_t integer(int column) const;
    [[nodiscard]] std::uint64_t number(int column) const {
        return static_cast<std::uint64_t>(integer(column));
    }
    [[nodiscard]] double real(int column) const;
    [[nodiscard]] std::string text(int column) const;
    [[nodiscard]] bool null(int column) const;

  private:
    sqlite3* database_;
    sqlite3_stmt* statement_;  // null when it could not be prepared
    std::string error_;        // then
    int next_parameter_ = 1;
};

class Database {
  public:
    // Read-only opens share the file with a server that is running.
    [[nodiscard]] static Result<Database> open(const std::string& path, bool read_only = false);
    Database(Database&&) noexcept;
    Database& operator=(Database&&) noexcept;
    ~Database();

    [[nodiscard]] Result<void> execute(const std::string& sql);  // statements without parameters
    // Prepared once a text and kept. A text of ours that does not prepare is our bug.
    [[nodiscard]] Statement statement(const char* sql);
    // A copy of the whole, consistent however busy the file is.
    [[nodiscard]] Result<void> backup_to(const std::string& path);

  private:
    struct Handle;
    explicit Database(std::unique_ptr<Handle> handle);
    std::unique_ptr<Handle> handle_;
};

}  // namespace ecopipe
