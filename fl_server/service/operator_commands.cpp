#include "fl_server/service/operator_commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "core/files.h"
#include "core/log.h"
#include "core/strict_json.h"
#include "fl_server/service/control_socket.h"
#include "fl_server/service/federation.h"
#include "fl_server/service/replay.h"
#include "fl_server/state/journal.h"
#include "fl_server/view/view_text.h"

namespace ecopipe {
namespace {

constexpr double kTimeoutS = 60;

Result<Json> ask(const OperatorCommand& command, const std::string& line) {
    ECOPIPE_ASSIGN_OR_RETURN(
        const std::string answer,
        ask_server(command.state_directory + "/control.sock", line, kTimeoutS));
    ECOPIPE_ASSIGN_OR_RETURN(Json json, parse_json(answer, "the server's answer"));
    if (json.contains("error")) return fail(ExitCode::kUsage, json.at("error").get<std::string>());
    return json;
}

Result<Journal> journal_of(const OperatorCommand& command, bool read_only) {
    const std::string path = command.state_directory + "/journal.sqlite";
    if (!std::filesystem::exists(path))
        return fail(ExitCode::kBadFile, path + ": there is no federation");
    return Journal::open(path, read_only);
}

// Nobody runs the federation: what the journal says of it.
Result<ExitCode> stopped_status(const OperatorCommand& command) {
    ECOPIPE_ASSIGN_OR_RETURN(Journal journal, journal_of(command, true));
    ECOPIPE_ASSIGN_OR_RETURN(const std::uint64_t version, journal.last_version());
    ECOPIPE_ASSIGN_OR_RETURN(const auto rows, journal.sites());
    OrderedJson sites = OrderedJson::array();
    for (const SiteRow& row : rows)
        sites.push_back({{"cluster", row.cluster},
                         {"rejections", row.rejections},
                         {"quarantined", row.quarantined},
                         {"reason", row.reason}});
    if (command.json) {
        const OrderedJson json{{"phase", "not running"}, {"version", version}, {"sites", sites}};
        fmt::print("{}\n", json.dump());
        return ExitCode::kDone;
    }
    fmt::print("not running; version {}\n", version);
    for (const SiteRow& row : rows)
        fmt::print("{}: {} rejections{}: {}\n", printable(row.cluster), row.rejections,
                   row.quarantined ? ", in quarantine" : "", row.reason);
    return ExitCode::kDone;
}

Result<ExitCode> status(const OperatorCommand& command) {
    const auto json = ask(command, "status");
    if (!json && json.error().code == ExitCode::kUnreachable) return stopped_status(command);
    if (!json) return tl::unexpected<Error>(json.error());
    fmt::print("{}", command.json ? json->dump() + "\n" : status_text(*json));
    return ExitCode::kDone;
}

Result<ExitCode> admit(const OperatorCommand& command) {
    const auto asked = ask(command, "admit " + command.cluster);
    if (asked) return ExitCode::kDone;
    if (asked.error().code != ExitCode::kUnreachable) return tl::unexpected<Error>(asked.error());
    ECOPIPE_ASSIGN_OR_RETURN(Journal journal, journal_of(command, false));
    ECOPIPE_ASSIGN_OR_RETURN(const auto rows, journal.sites());
    for (SiteRow row : rows) {
        if (row.cluster != command.cluster || !row.quarantined) continue;
        row.quarantined = false;
        row.in_a_row = 0;
        ECOPIPE_RETURN_IF_ERROR(journal.set_site(row));
        return ExitCode::kDone;
    }
    return fail(ExitCode::kUsage,
                fmt::format("cluster {} is not in quarantine", printable(command.cluster)));
}

Result<ExitCode> backup(const OperatorCommand& command) {
    const std::string to = std::filesystem::absolute(command.to).string();
    const auto asked = ask(command, "backup " + to);
    if (asked) return ExitCode::kDone;
    if (asked.error().code != ExitCode::kUnreachable) return tl::unexpected<Error>(asked.error());
    ECOPIPE_ASSIGN_OR_RETURN(Journal journal, journal_of(command, true));
    ECOPIPE_RETURN_IF_ERROR(backup_state(journal, command.state_directory, to));
    return ExitCode::kDone;
}

Result<ExitCode> replay(const OperatorCommand& command) {
    ECOPIPE_ASSIGN_OR_RETURN(
        const ReplayOutcome outcome,
        replay_journal(command.state_directory, command.state_directory + "/replay"));
    fmt::print("{} versions from {} updates: {} differ\n", outcome.versions, outcome.updates,
               outcome.different);
    return outcome.different == 0 ? ExitCode::kDone : ExitCode::kRunFailed;
}

}  // namespace

bool is_operator_command(const std::string& word) {
    constexpr std::array kWords{"status", "pause", "resume", "finish", "admit", "backup", "replay"};
    return std::find(kWords.begin(), kWords.end(), word) != kWords.end();
}

Result<ExitCode> run_operator_command(const OperatorCommand& command) {
    if (command.word == "status") return status(command);
    if (command.word == "admit") return admit(command);
    if (command.word == "backup") return backup(command);
    if (command.word == "replay") return replay(command);
    ECOPIPE_ASSIGN_OR_RETURN(const Json answer, ask(command, command.word));
    static_cast<void>(answer);
    return ExitCode::kDone;
}

}  // namespace ecopipe
