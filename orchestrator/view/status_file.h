#pragma once
// DIR/status.json: what `ecopipe-train status` reads of a run that may still live, and who writes
// it. Replaced while the run goes on, at most once a second.

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "core/result.h"
#include "core/strict_json.h"
#include "orchestrator/view/run_view.h"

namespace ecopipe {

// A process, told from another one that has its number later.
struct ProcessIdentity {
    std::string host;
    std::string boot;  // of the kernel
    pid_t pid = 0;
    std::uint64_t start_ticks = 0;
    bool operator==(const ProcessIdentity&) const = default;
};
[[nodiscard]] ProcessIdentity this_process();
// Whether it runs here and now; nothing when it is another machine's.
[[nodiscard]] std::optional<bool> still_runs(const ProcessIdentity& process);

// The text of the file. `page` is the address of the web page, "" without one.
[[nodiscard]] std::string status_text(const RunSnapshot& run, const ProcessIdentity& process,
                                      const std::string& page, std::int64_t now_unix_ms);

struct RunStatus {
    // running | recovering | starting | ended | failed | died | unknown (of another machine)
    std::string state;
    std::string text;  // one line about it
    std::string page;
    std::optional<pid_t> pid;       // while it runs
    std::int64_t step_age_ms = -1;  // since the newest committed step; -1: there is none
    RunSnapshot run;
};
// Looks at the files of `directory`; without a status.json that can be read, at metrics.jsonl and
// run.json. Errors: kBadFile when there is no run.
[[nodiscard]] Result<RunStatus> look_at_run(const std::string& directory, std::int64_t now_unix_ms);

}  // namespace ecopipe
