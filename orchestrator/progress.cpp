#include "orchestrator/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace ecopipe {
namespace {

std::string time_text(double seconds) {
    const auto s = static_cast<long>(seconds);
    if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
    return fmt::format("{}:{:02}", s / 60, s % 60);
}

}  // namespace

Progress::Progress(bool quiet) : quiet_(quiet), terminal_(::isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() { std::fflush(stderr); }

void Progress::erase() {
    for (; lines_drawn_ > 0; --lines_drawn_) std::fputs("\x1b[1A\x1b[2K", stderr);
}

void Progress::note(const std::string& text) {
    if (quiet_) return;
    erase();
    fmt::print(stderr, "{}\n", text);
}

void Progress::show(const ProgressView& view, const std::vector<DeviceReport>& devices) {
    if (quiet_) return;
    const Instant now = monotonic_now();
    const auto every = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(2000);
    const bool last = view.step == view.steps;
    if (!last && now - last_ < every) return;
    last_ = now;
    const double left_s = static_cast<double>(view.steps - view.step) * view.step_ms / 1000;
    const std::string line =
        fmt::format("step {}/{}  epoch {:.2f}  loss {:.4f}  {:.0f} samples/s  {} left", view.step,
                    view.steps, view.epoch, view.loss, view.samples_per_s, time_text(left_s));
    if (!terminal_) {
        fmt::print(stderr, "{}\n", line);
        return;
    }
    constexpr std::uint64_t kWidth = 30;
    const std::uint64_t filled = view.steps > 0 ? view.step * kWidth / view.steps : kWidth;
    erase();
    fmt::print(stderr, "[{}{}] {}\n", std::string(filled, '#'), std::string(kWidth - filled, '.'),
               line);
    lines_drawn_ = 1;
    for (const DeviceReport& device : devices) {
        const double total = device.busy_ms + device.wait_ms;
        fmt::print(stderr, "  {:<16} busy {:3.0f} %  peak {:6.1f} MiB  sent {:6.2f} MiB a step\n",
                   device.device, total > 0 ? 100 * device.busy_ms / total : 100.0,
                   static_cast<double>(device.peak_bytes) / (1 << 20),
                   static_cast<double>(device.sent_bytes) / (1 << 20));
        ++lines_drawn_;
    }
}

}  // namespace ecopipe
