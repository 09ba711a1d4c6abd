#include "planner/schedule/schedule_csv.h"

#include <fmt/format.h>

#include <charconv>

#include "core/log.h"
#include "core/strict_json.h"
#include "domain/limits.h"

namespace ecopipe {
namespace {

constexpr std::size_t kStagesMax = kDevicesMax * kSlicesMax;

std::string_view trimmed(std::string_view text) {
    const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
    while (!text.empty() && blank(text.front())) text.remove_prefix(1);
    while (!text.empty() && blank(text.back())) text.remove_suffix(1);
    return text;
}

// Digits only, so that "+3", "-3" and " 3" are refused.
bool parse_index(std::string_view text, int limit, int& out) {
    if (text.empty() || text.size() > 6 || text.front() < '0' || text.front() > '9') return false;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    return error == std::errc() && stop == text.data() + text.size() && out < limit;
}

bool parse_action(std::string_view cell, Action& out) {
    if (cell.empty() || std::string_view("FBIW").find(cell.front()) == std::string_view::npos)
        return false;
    out.kind = static_cast<ActionKind>(cell.front());
    cell.remove_prefix(1);
    const std::size_t dot = cell.find('.');
    if (dot != std::string_view::npos && !parse_index(cell.substr(dot + 1), kSlicesMax, out.slice))
        return false;
    return parse_index(cell.substr(0, dot), kMicroBatchMax, out.micro_batch);
}

}  // namespace

std::string action_text(const Action& action) {
    const char kind = static_cast<char>(action.kind);
    return action.slice == 0 ? fmt::format("{}{}", kind, action.micro_batch)
                             : fmt::format("{}{}.{}", kind, action.micro_batch, action.slice);
}

std::string actions_csv(const ActionList& actions) {
    std::string out;
    for (const Action& action : actions) {
        if (!out.empty()) out += ',';
        out += action_text(action);
    }
    return out;
}

std::string schedule_csv(const std::vector<ActionList>& devices, const Placement& place) {
    std::string out;
    for (int stage = 0; stage < place.stages() && !place.is_cyclic(); ++stage)
        out += fmt::format("{}{}", stage == 0 ? "# place: " : ",", place.device(stage));
    if (!out.empty()) out += '\n';
    for (const ActionList& actions : devices) out += actions_csv(actions) + "\n";
    return out;
}

Result<ActionList> parse_actions(std::string_view line, const std::string& place) {
    ActionList out;
    for (std::size_t start = 0; start <= line.size();) {
        const std::size_t comma = std::min(line.find(',', start), line.size());
        const std::string_view cell = trimmed(line.substr(start, comma - start));
        Action action;
        if (!parse_action(cell, action))
            return fail(
                ExitCode::kBadFile,
                fmt::format(
                    "{}: action {}: expected F, B, I or W, a micro-batch below {} and perhaps "
                    "'.' and a slice below {}, found '{}'",
                    place, out.size() + 1, kMicroBatchMax, kSlicesMax, printable(cell)));
        out.push_back(action);
        start = comma + 1;
    }
    return out;
}

// What a line "# place: 0,1,1,0" says; of any other comment nothing.
Result<std::optional<Placement>> parse_placement(std::string_view line, const std::string& place) {
    line = trimmed(line.substr(1));
    constexpr std::string_view kKey = "place:";
    if (!line.starts_with(kKey)) return std::nullopt;
    line.remove_prefix(kKey.size());
    std::vector<int> devices;
    int known = 0;
    for (std::size_t start = 0; start <= line.size();) {
        const std::size_t comma = std::min(line.find(',', start), line.size());
        const std::string_view cell = trimmed(line.substr(start, comma - start));
        int device = 0;
        if (!parse_index(cell, std::min<int>(known + 1, kDevicesMax), device) ||
            devices.size() == kStagesMax)
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: place: expected the device of each of at most {} stages, "
                                    "numbered as they come, found '{}'",
                                    place, kStagesMax, printable(cell)));
        known = std::max(known, device + 1);
        devices.push_back(device);
        start = comma + 1;
    }
    return Placement::of(devices);
}

Result<ScheduleText> parse_schedule(std::string_view text, const std::string& source) {
    if (text.size() > kConfigBytesMax)
        return fail(ExitCode::kBadFile, fmt::format("{}: expected at most {} bytes, found {}",
                                                    source, kConfigBytesMax, text.size()));
    ScheduleText out;
    int number = 0;
    for (std::size_t start = 0; start < text.size();) {
        const std::size_t end = std::min(text.find('\n', start), text.size());
        const std::string_view line = trimmed(text.substr(start, end - start));
        start = end + 1;
        ++number;
        const std::string place = fmt::format("line {}", number);
        if (line.empty()) continue;
        if (line.front() == '#') {
            ECOPIPE_ASSIGN_OR_RETURN(auto said, parse_placement(line, source + ": " + place));
            if (said) out.placement = std::move(said);
            continue;
        }
        ECOPIPE_ASSIGN_OR_RETURN(ActionList actions, parse_actions(line, source + ": " + place));
        out.devices.push_back(std::move(actions));
        out.places.push_back(place);
        if (out.devices.size() > kDevicesMax)
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: {}: expected at most {} devices, found more", source,
                                    place, kDevicesMax));
    }
    if (out.devices.empty())
        return fail(
            ExitCode::kBadFile,
            fmt::format("{}: expected a line of actions for each device, found none", source));
    return out;
}

}  // namespace ecopipe
