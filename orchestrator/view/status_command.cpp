#include "orchestrator/view/status_command.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/command_line.h"
#include "core/wall_clock.h"
#include "orchestrator/view/live_table.h"
#include "orchestrator/view/status_file.h"
#include "orchestrator/view/view_document.h"

namespace ecopipe {
namespace {

constexpr std::size_t kWide = 1000;  // into a pipe nothing is cut

std::size_t columns_of_stdout() {
    struct winsize size{};
    return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kWide;
}

}  // namespace

Result<ExitCode> show_status(int argc, const char* const* argv) {
    CommandLine line("ecopipe-train status", "how a run is doing, from its directory");
    line.text("out", "directory of the run");
    line.flag("json", "print one JSON document");
    ECOPIPE_ASSIGN_OR_RETURN(const auto leave, line.parse(argc, argv));
    if (leave) return *leave;
    if (!line.has("out")) return fail(ExitCode::kUsage, "--out is missing");
    const std::int64_t now = unix_ms_now();
    ECOPIPE_ASSIGN_OR_RETURN(const RunStatus status, look_at_run(line.get_text("out"), now));
    if (line.get_flag("json")) {
        OrderedJson out{{"state", status.state}, {"text", status.text}};
        if (status.pid) out["pid"] = *status.pid;
        if (!status.page.empty()) out["page"] = status.page;
        if (status.step_age_ms >= 0)
            out["step_age_s"] = static_cast<double>(status.step_age_ms) / 1000;
        out["view"] = view_summary(status.run, now);
        fmt::print("{}\n", out.dump(2));
    } else {
        fmt::print("{}{}{}\n{}\n", status.run.title, status.run.title.empty() ? "" : ": ",
                   status.text, status.page.empty() ? "" : status.page + "\n");
        for (const std::string& row :
             table_lines(status.run, columns_of_stdout(), kWide, local_utc_offset_s()))
            fmt::print("{}\n", row);
    }
    return status.state == "failed" || status.state == "died" ? ExitCode::kRunFailed
                                                              : ExitCode::kDone;
}

}  // namespace ecopipe
