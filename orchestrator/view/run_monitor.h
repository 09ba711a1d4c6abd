#pragma once
// Everything that shows a run while it goes on: the view, the terminal, status.json and the page,
// and the thread that keeps them up to date, also while nothing moves.

#include <memory>
#include <string>
#include <thread>

#include "core/mutex.h"
#include "orchestrator/view/progress.h"
#include "orchestrator/view/run_view.h"
#include "transport/web/web_server.h"

namespace ecopipe {

class RunMonitor {
  public:
    explicit RunMonitor(bool quiet);
    RunMonitor(const RunMonitor&) = delete;
    RunMonitor& operator=(const RunMonitor&) = delete;
    ~RunMonitor();

    [[nodiscard]] RunView& view() { return view_; }
    [[nodiscard]] Progress& progress() { return progress_; }
    // The page, from now on. Errors: kUnreachable.
    [[nodiscard]] Result<void> serve(const Endpoint& address) ECOPIPE_EXCLUDES(mutex_);
    // status.json in `directory`, from now on. One that cannot be written is said once.
    void keep_status(const std::string& directory) ECOPIPE_EXCLUDES(mutex_);
    // The last word. A run that failed before its first step leaves no status.json.
    void end(RunState state, const std::string& text) ECOPIPE_EXCLUDES(mutex_);

  private:
    void run();
    void write_status() ECOPIPE_REQUIRES(mutex_);

    RunView view_;
    Progress progress_;
    std::unique_ptr<WebServer> web_;
    Mutex mutex_;
    ConditionVariable stop_wanted_;
    std::string page_ ECOPIPE_GUARDED_BY(mutex_);
    bool stopping_ ECOPIPE_GUARDED_BY(mutex_) = false;
    std::string status_path_ ECOPIPE_GUARDED_BY(mutex_);
    std::uint64_t status_revision_ ECOPIPE_GUARDED_BY(mutex_) = 0;
    bool status_failed_ ECOPIPE_GUARDED_BY(mutex_) = false;
    std::thread thread_;  // the last: it uses all of the above
};

}  // namespace ecopipe
