#include "orchestrator/view/live_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

namespace ecopipe {
namespace {

constexpr std::size_t kEventLines = 5;
constexpr std::size_t kBarWidth = 30;
constexpr std::size_t kHeadLines = 2;  // the bar and the table's heading

std::string time_text(double seconds) {
    const auto s = static_cast<long>(seconds);
    if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
    return fmt::format("{}:{:02}", s / 60, s % 60);
}

std::string share(double value) { return value < 0 ? "-" : fmt::format("{:.0f} %", 100 * value); }

bool continues(char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U; }

std::string row(const DeviceView& device, std::size_t name_width, std::size_t layers_width) {
    const std::string memory =
        device.budget_mib > 0 ? fmt::format("{:.1f} of {:.0f}", device.used_mib, device.budget_mib)
                              : fmt::format("{:.1f}", device.used_mib);
    return fmt::format("{:<{}}  {:<{}}  {:>5}  {:>7}  {:>15}  {:>8.1f}  {}{}", device.name,
                       name_width, device.layers.empty() ? "-" : device.layers, layers_width,
                       share(device.busy), share(device.busy < 0 ? -1 : 1 - device.busy), memory,
                       device.sent_mbps, device.state,
                       device.note.empty() ? "" : ": " + device.note);
}

std::string clock_text(std::int64_t unix_ms, int utc_offset_s) {
    const std::int64_t s = unix_ms / 1000 + utc_offset_s;
    return fmt::format("{:02}:{:02}:{:02}", s / 3600 % 24, s / 60 % 60, s % 60);
}

}  // namespace

std::string cut_to(const std::string& text, std::size_t columns) {
    std::size_t seen = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (continues(text[i])) continue;
        if (seen == columns) return text.substr(0, i);
        ++seen;
    }
    return text;
}

std::string age_text(std::int64_t ms) {
    const std::int64_t s = std::max<std::int64_t>(ms, 0) / 1000;
    if (s < 120) return fmt::format("{} s", s);
    if (s < 7200) return fmt::format("{} min", s / 60);
    if (s < 172800) return fmt::format("{} h", s / 3600);
    return fmt::format("{} days", s / 86400);
}

int local_utc_offset_s() {
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    return ::localtime_r(&now, &local) == nullptr ? 0 : static_cast<int>(local.tm_gmtoff);
}

std::string progress_line(const RunSnapshot& run) {
    if (run.step == 0) {
        const std::string state = run_state_text(run.state);
        return run.state_text.empty() ? state : state + ": " + run.state_text;
    }
    std::string line = fmt::format("step {}", run.step);
    if (run.steps > 0) line += fmt::format("/{}", run.steps);
    line += fmt::format("  epoch {:.2f}  loss {:.4f}  {:.0f} samples/s", run.epoch, run.loss,
                        run.samples_per_s);
    if (const auto accuracy = run.evaluation.find("accuracy"); accuracy != run.evaluation.end())
        line += fmt::format("  {} accuracy {:.2f} %", run.evaluated_split, 100 * accuracy->second);
    if (run.steps > run.step)
        line += fmt::format(
            "  {} left", time_text(static_cast<double>(run.steps - run.step) * run.step_ms / 1000));
    if (run.state == RunState::kRecovering) line += "  recovering";
    return line;
}

std::vector<std::string> table_lines(const RunSnapshot& run, std::size_t columns, std::size_t rows,
                                     int utc_offset_s) {
    std::vector<std::string> lines;
    std::string bar;
    if (run.steps > 0) {
        const auto filled =
            static_cast<std::size_t>(std::min(run.step, run.steps) * kBarWidth / run.steps);
        bar = "[" + std::string(filled, '#') + std::string(kBarWidth - filled, '.') + "] ";
    }
    const std::string progress = progress_line(run);
    lines.push_back(bar.size() + progress.size() <= columns ? bar + progress : progress);
    std::size_t name_width = 6;
    std::size_t layers_width = 6;
    for (const DeviceView& device : run.devices) {
        name_width = std::max(name_width, device.name.size());
        layers_width = std::max(layers_width, device.layers.size());
    }
    const std::size_t room = rows > kHeadLines ? rows - kHeadLines : 0;
    const std::size_t shown = std::min(run.devices.size(), room);
    if (shown > 0)
        lines.push_back(fmt::format("{:<{}}  {:<{}}  {:>5}  {:>7}  {:>15}  {:>8}  {}", "device",
                                    name_width, "layers", layers_width, "busy", "waiting",
                                    "MiB of budget", "Mbit/s", "state"));
    for (std::size_t i = 0; i < shown; ++i)
        lines.push_back(row(run.devices[i], name_width, layers_width));
    const std::size_t events =
        std::min({run.events.size(), kEventLines, room > shown ? room - shown : 0});
    for (std::size_t i = run.events.size() - events; i < run.events.size(); ++i) {
        const RunEvent& event = run.events[i];
        lines.push_back(fmt::format("{}  {:<10}  {}", clock_text(event.unix_ms, utc_offset_s),
                                    event.kind, event.text));
    }
    if (lines.size() > rows) lines.resize(rows);
    for (std::string& line : lines) line = cut_to(line, columns);
    return lines;
}

}  // namespace ecopipe
