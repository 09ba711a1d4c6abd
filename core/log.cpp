#include "core/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/sink.h>
#include <spdlog/spdlog.h>

#include <cstdio>

#include "core/mutex.h"
#include "core/utf8.h"

namespace ecopipe {
namespace {

spdlog::level::level_enum to_spdlog(LogLevel level) {
    switch (level) {
        case LogLevel::kDebug:
            return spdlog::level::debug;
        case LogLevel::kInfo:
            return spdlog::level::info;
        case LogLevel::kWarn:
            return spdlog::level::warn;
        case LogLevel::kError:
            return spdlog::level::err;
    }
    return spdlog::level::info;
}

// stderr, or whoever has taken its place. The writer must not log.
class LineSink : public spdlog::sinks::sink {
  public:
    void redirect(std::function<void(std::string_view)> writer) ECOPIPE_EXCLUDES(mutex_) {
        const MutexLock lock(mutex_);
        writer_ = std::move(writer);
    }
    void log(const spdlog::details::log_msg& message) override {
        const MutexLock lock(mutex_);
        spdlog::memory_buf_t line;
        formatter_->format(message, line);
        if (writer_) return writer_({line.data(), line.size()});
        std::fwrite(line.data(), 1, line.size(), stderr);
    }
    void flush() override {
        const MutexLock lock(mutex_);
        std::fflush(stderr);
    }
    void set_pattern(const std::string& pattern) override {
        set_formatter(std::make_unique<spdlog::pattern_formatter>(pattern));
    }
    void set_formatter(std::unique_ptr<spdlog::formatter> formatter) override {
        const MutexLock lock(mutex_);
        formatter_ = std::move(formatter);
    }

  private:
    Mutex mutex_;
    std::unique_ptr<spdlog::formatter> formatter_ ECOPIPE_GUARDED_BY(mutex_) =
        std::make_unique<spdlog::pattern_formatter>();
    std::function<void(std::string_view)> writer_ ECOPIPE_GUARDED_BY(mutex_);
};

}  // namespace

void redirect_log(std::function<void(std::string_view line)> writer) {
    for (const auto& sink : spdlog::default_logger()->sinks())
        if (auto* lines = dynamic_cast<LineSink*>(sink.get())) lines->redirect(writer);
}

Result<void> configure_log(std::string_view program, std::string_view level) {
    LogLevel chosen;
    if (level == "debug") {
        chosen = LogLevel::kDebug;
    } else if (level == "info") {
        chosen = LogLevel::kInfo;
    } else if (level == "warn") {
        chosen = LogLevel::kWarn;
    } else if (level == "error") {
        chosen = LogLevel::kError;
    } else {
        return fail(ExitCode::kUsage,
                    fmt::format("--log-level: expected debug, info, warn or error, found '{}'",
                                printable(level)));
    }
    auto sink = std::make_shared<LineSink>();
    auto logger = std::make_shared<spdlog::logger>(std::string(program), std::move(sink));
    logger->set_pattern("%H:%M:%S.%e %n %l: %v");
    logger->set_level(to_spdlog(chosen));
    logger->flush_on(spdlog::level::debug);
    spdlog::set_default_logger(std::move(logger));
    return {};
}

void log_line(LogLevel level, std::string_view text) { spdlog::log(to_spdlog(level), text); }

bool log_enabled(LogLevel level) { return spdlog::should_log(to_spdlog(level)); }

std::string printable(std::string_view text) {
    constexpr std::size_t kBytesMax = 200;
    std::string_view shown = text.substr(0, kBytesMax);
    const bool whole = is_utf8(text);  // what is not would end the program that puts it into JSON
    while (whole && shown.size() < text.size() &&
           (static_cast<unsigned char>(text[shown.size()]) & 0xC0) == 0x80)
        shown.remove_suffix(1);
    std::string out;
    for (const char c : shown) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20 || byte == 0x7F || (!whole && byte > 0x7F)) {
            out += fmt::format("\\x{:02x}", byte);
        } else {
            out += c;
        }
    }
    if (text.size() > kBytesMax) out += "...";
    return out;
}

std::string one_line(std::string_view text) {
    std::string joined;
    for (const char c : text) {
        const bool space = c == ' ' || c == '\n' || c == '\r' || c == '\t';
        if (!space) joined += c;
        if (space && !joined.empty() && joined.back() != ' ') joined += ' ';
    }
    while (joined.ends_with(' ')) joined.pop_back();
    return printable(joined);
}

}  // namespace ecopipe
