#include "orchestrator/view/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "core/log.h"
#include "orchestrator/view/live_table.h"

namespace ecopipe {
namespace {

constexpr auto kPlainLineEvery = std::chrono::seconds(2);
constexpr std::size_t kColumnsOtherwise = 80;
constexpr std::size_t kRowsOtherwise = 24;

bool terminal_can_draw() {
    const char* name = std::getenv("TERM");
    return ::isatty(STDERR_FILENO) != 0 && name != nullptr && std::string_view(name) != "dumb" &&
           *name != '\0';
}

std::pair<std::size_t, std::size_t> window_size() {
    struct winsize size{};
    if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0)
        return {kColumnsOtherwise, kRowsOtherwise};
    return {size.ws_col, size.ws_row};
}

std::size_t width_of(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char byte) {
        return (static_cast<unsigned char>(byte) & 0xC0U) != 0x80U;
    }));
}

}  // namespace

Progress::Progress(bool quiet, RunView& view)
    : view_(view), quiet_(quiet), live_(!quiet && terminal_can_draw()) {
    if (live_)
        redirect_log([this](std::string_view line) {
            const MutexLock lock(mutex_);
            if (live_) return write(line);
            std::fwrite(line.data(), 1, line.size(), stderr);
        });
}

Progress::~Progress() { finish(); }

// Takes the old table away, writes `above` and the table below it, in one write, so that nothing
// flickers.
void Progress::compose(std::string& out, std::string_view above) {
    std::tie(columns_, rows_) = window_size();
    std::size_t up = 0;  // a window that became narrower has wrapped what stood
    for (const std::size_t width : drawn_)
        up += std::max<std::size_t>(1, (width + columns_ - 1) / columns_);
    out += '\r';
    if (up > 0) out += fmt::format("\x1b[{}A", up);
    out += "\x1b[J";
    out += above;
    drawn_.clear();
    revision_ = view_.revision();
    // The last column stays free (writing there wraps on some terminals), and the last row, where
    // the cursor is.
    for (const std::string& line :
         table_lines(view_.snapshot(), columns_ - 1, rows_ - 1, local_utc_offset_s())) {
        out += line + '\n';
        drawn_.push_back(width_of(line));
    }
}

void Progress::write(std::string_view above) {
    std::string out;
    compose(out, above);
    std::fwrite(out.data(), 1, out.size(), stderr);
    std::fflush(stderr);
}

void Progress::note(const std::string& text) {
    if (quiet_) return;
    const MutexLock lock(mutex_);
    if (live_) return write(text + "\n");
    fmt::print(stderr, "{}\n", text);
}

void Progress::draw() {
    const MutexLock lock(mutex_);
    if (!live_) return;
    if (view_.revision() != revision_ || window_size() != std::pair(columns_, rows_)) write("");
}

void Progress::finish() {
    {
        const MutexLock lock(mutex_);
        if (!live_) return;
        write("");
        live_ = false;
    }
    redirect_log({});  // without the lock: the log's writer takes it while it holds the log's own
}

void Progress::show(const ProgressView& step) {
    view_.progress(step.step, step.steps, step.epoch, step.samples_per_s);
    if (quiet_) return;
    const MutexLock lock(mutex_);
    if (live_) return;
    const Instant now = monotonic_now();
    if (step.step != step.steps && now - last_ < kPlainLineEvery) return;
    last_ = now;
    RunSnapshot line;
    line.step = step.step;
    line.steps = step.steps;
    line.epoch = step.epoch;
    line.loss = step.loss;
    line.samples_per_s = step.samples_per_s;
    line.step_ms = step.step_ms;
    fmt::print(stderr, "{}\n", progress_line(line));
}

}  // namespace ecopipe
