#pragma once
// The error model of every module: what can happen in the field is a Result with one line a user
// can act on.

#include <cstdint>
#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace ecopipe {

// Process exit codes, a contract with scripts (docs/reference/programs.md).
enum class ExitCode : std::uint8_t {
    kDone = 0,
    kRunFailed = 1,
    kUsage = 2,
    kBadFile = 3,      // cluster, profile, plan, model, data or checkpoint is invalid
    kUnreachable = 4,  // a peer cannot be reached or went away
    kMismatch = 5,     // version or key mismatch
};

// An expected failure. `message` is one line: place, what was expected, what was found.
struct Error {
    ExitCode code = ExitCode::kRunFailed;
    std::string message;
};

template <class T>
using Result = tl::expected<T, Error>;

[[nodiscard]] inline tl::unexpected<Error> fail(ExitCode code, std::string message) {
    return tl::unexpected<Error>(Error{code, std::move(message)});
}

// The same failure, told from one level further out ("plan.json: " + message).
[[nodiscard]] inline tl::unexpected<Error> fail_in(const std::string& place, Error error) {
    error.message = place + ": " + error.message;
    return tl::unexpected<Error>(std::move(error));
}

}  // namespace ecopipe

#define ECOPIPE_CONCAT_INNER(a, b) a##b
#define ECOPIPE_CONCAT(a, b) ECOPIPE_CONCAT_INNER(a, b)

// Returns the error of a Result<void> from the enclosing function.
#define ECOPIPE_RETURN_IF_ERROR(expression)                                  \
    do {                                                                     \
        if (auto ecopipe_result = (expression); !ecopipe_result)             \
            return tl::unexpected<::ecopipe::Error>(ecopipe_result.error()); \
    } while (false)

// ECOPIPE_ASSIGN_OR_RETURN(auto plan, read_plan(path)): the value, or the enclosing function fails.
#define ECOPIPE_ASSIGN_OR_RETURN(declaration, expression)                                  \
    ECOPIPE_ASSIGN_OR_RETURN_INNER(ECOPIPE_CONCAT(ecopipe_result_, __LINE__), declaration, \
                                   expression)
#define ECOPIPE_ASSIGN_OR_RETURN_INNER(name, declaration, expression)            \
    auto name = (expression);                                                    \
    if (!name) return tl::unexpected<::ecopipe::Error>(std::move(name).error()); \
    declaration = std::move(*name)
