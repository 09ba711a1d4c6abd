#include "orchestrator/view/status_file.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <fstream>

#include "core/files.h"
#include "core/host_facts.h"
#include "core/log.h"
#include "core/wall_clock.h"
#include "orchestrator/view/live_table.h"
#include "orchestrator/view/view_document.h"

namespace ecopipe {
namespace {

constexpr std::size_t kStatusBytesMax = 4U << 20;
constexpr std::size_t kRunBytesMax = 16U << 20;
constexpr const char* kSchema = "ecopipe.status/1";

std::string first_line(const std::string& path) {
    std::ifstream file(path);  // of /proc, whose files have no size
    std::string line;
    std::getline(file, line);
    return line;
}

// Field 22 of /proc/PID/stat, behind a name that may contain anything; 0: no such process, or one
// that has ended and only waits to be reaped.
std::uint64_t start_ticks_of(pid_t pid) {
    constexpr int kFieldsBetween = 19;  // the state is field 3
    const std::string line = first_line(fmt::format("/proc/{}/stat", pid));
    const std::size_t name_end = line.rfind(')');
    if (name_end == std::string::npos || name_end + 2 >= line.size()) return 0;
    if (line[name_end + 2] == 'Z' || line[name_end + 2] == 'X') return 0;
    std::size_t at = name_end + 1;
    for (int field = 0; field < kFieldsBetween && at != std::string::npos; ++field)
        at = line.find(' ', at + 1);
    std::uint64_t ticks = 0;
    if (at == std::string::npos) return 0;
    std::from_chars(line.data() + at + 1, line.data() + line.size(), ticks);
    return ticks;
}

std::string last_step_text(std::int64_t age_ms) {
    return age_ms < 0 ? "no step yet" : "last step " + age_text(age_ms) + " ago";
}

std::string json_text(const OrderedJson& object, const char* key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

std::uint64_t json_number(const OrderedJson& object, const char* key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

bool over(RunState state) { return state == RunState::kEnded || state == RunState::kFailed; }

RunStatus judge(RunSnapshot run, const ProcessIdentity& process, std::string page,
                std::int64_t written_unix_ms, std::int64_t now_unix_ms) {
    RunStatus status;
    status.step_age_ms = run.step_unix_ms > 0 ? now_unix_ms - run.step_unix_ms : -1;
    const std::string last = last_step_text(status.step_age_ms);
    status.state = run_state_text(run.state);
    if (over(run.state)) {
        status.text = fmt::format("{}{}{}, {}", status.state, run.state_text.empty() ? "" : ": ",
                                  run.state_text, last);
    } else if (const auto alive = still_runs(process); !alive) {
        status.state = "unknown";
        status.text = fmt::format("on {}, whose processes cannot be seen from here; written {} ago",
                                  printable(process.host), age_text(now_unix_ms - written_unix_ms));
    } else if (*alive) {
        status.pid = process.pid;
        status.page = std::move(page);
        status.text = fmt::format("{} (process {}), {}{}{}", status.state, process.pid, last,
                                  run.state_text.empty() ? "" : "; ", run.state_text);
    } else {
        status.text = fmt::format("died: process {} is gone and did not say how it ended; {}",
                                  process.pid, last);
        status.state = "died";
    }
    status.run = std::move(run);
    return status;
}

// Of a run whose status.json is missing or damaged.
Result<RunStatus> look_at_metrics(const std::string& directory, std::int64_t now_unix_ms) {
    const std::string path = directory + "/metrics.jsonl";
    struct stat info{};
    if (::stat(path.c_str(), &info) != 0)
        return fail(ExitCode::kBadFile,
                    fmt::format("--out {}: expected the directory of a run, found neither "
                                "status.json nor metrics.jsonl",
                                printable(directory)));
    RunView view(unix_ms_now);
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);)
        view.metrics_line(OrderedJson::parse(line, nullptr, false), false);
    RunStatus status;
    status.run = view.snapshot();
    status.run.step_unix_ms =
        static_cast<std::int64_t>(info.st_mtim.tv_sec) * 1000 + info.st_mtim.tv_nsec / 1000000;
    status.step_age_ms = now_unix_ms - status.run.step_unix_ms;
    const auto text = read_file(directory + "/run.json", kRunBytesMax);
    const OrderedJson run_json =
        text ? OrderedJson::parse(*text, nullptr, false) : OrderedJson::object();
    if (run_json.is_object() && run_json.contains("results")) status.run.state = RunState::kEnded;
    status.state = status.run.state == RunState::kEnded ? "ended" : "unknown";
    status.text = fmt::format("{}, by metrics.jsonl alone; {}", status.state,
                              last_step_text(status.step_age_ms));
    return status;
}

}  // namespace

ProcessIdentity this_process() {
    ProcessIdentity process;
    process.host = host_name();
    process.boot = first_line("/proc/sys/kernel/random/boot_id");
    process.pid = ::getpid();
    process.start_ticks = start_ticks_of(process.pid);
    return process;
}

std::optional<bool> still_runs(const ProcessIdentity& process) {
    if (process.host != host_name()) return std::nullopt;
    return process.boot == first_line("/proc/sys/kernel/random/boot_id") && process.pid > 0 &&
           start_ticks_of(process.pid) == process.start_ticks && process.start_ticks != 0;
}

std::string status_text(const RunSnapshot& run, const ProcessIdentity& process,
                        const std::string& page, std::int64_t now_unix_ms) {
    const OrderedJson out{{"schema", kSchema},
                          {"host", process.host},
                          {"boot", process.boot},
                          {"pid", process.pid},
                          {"start_ticks", process.start_ticks},
                          {"page", page},
                          {"written_unix_ms", now_unix_ms},
                          {"view", view_summary(run, now_unix_ms)}};
    return out.dump(1) + "\n";
}

Result<RunStatus> look_at_run(const std::string& directory, std::int64_t now_unix_ms) {
    const auto text = read_file(directory + "/status.json", kStatusBytesMax);
    if (!text) return look_at_metrics(directory, now_unix_ms);
    const OrderedJson file = OrderedJson::parse(*text, nullptr, false);
    if (!file.is_object() || json_text(file, "schema") != kSchema || !file.contains("view") ||
        !file["view"].is_object())
        return look_at_metrics(directory, now_unix_ms);
    ProcessIdentity process;
    process.host = json_text(file, "host");
    process.boot = json_text(file, "boot");
    process.pid = static_cast<pid_t>(json_number(file, "pid"));
    process.start_ticks = json_number(file, "start_ticks");
    return judge(read_summary(file["view"]), process, printable(json_text(file, "page")),
                 static_cast<std::int64_t>(json_number(file, "written_unix_ms")), now_unix_ms);
}

}  // namespace ecopipe
