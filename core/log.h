#pragma once
// Logs go to stderr, one line an event; results go to stdout. spdlog is used through this header
// alone.

#include <fmt/format.h>

#include <functional>
#include <string_view>
#include <utility>

#include "core/result.h"

namespace ecopipe {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

// Sets the process-wide level ("debug", "info", "warn", "error") and the program's name in every
// line.
Result<void> configure_log(std::string_view program, std::string_view level);
void log_line(LogLevel level, std::string_view text);
[[nodiscard]] bool log_enabled(LogLevel level);

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
    if (log_enabled(LogLevel::kDebug))
        log_line(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
    if (log_enabled(LogLevel::kInfo))
        log_line(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
    if (log_enabled(LogLevel::kWarn))
        log_line(LogLevel::kWarn, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
    log_line(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

// Whoever draws on the terminal takes the lines, newline included, instead of stderr; without a
// `writer`, stderr again. The writer must not log.
void redirect_log(std::function<void(std::string_view line)> writer);

// Text of a peer or a file made safe for one log line: control bytes escaped, cut at 200 bytes.
[[nodiscard]] std::string printable(std::string_view text);
// What a library says, as part of one line: line breaks and tabs become single spaces, the rest as
// `printable`.
[[nodiscard]] std::string one_line(std::string_view text);

}  // namespace ecopipe
