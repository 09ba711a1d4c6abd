#pragma once
// Everything that shows a run while it goes on: the view, the terminal, status.json and the page,
// and the thread that keeps them up to date, also while nothing moves.

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

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
    [[nodiscard]] Result<void> serve(const Endpoint& address);
    // status.json in `directory`, from now on. One that cannot be written is said once.
    void keep_status(const std::string& directory);
    // The last word. A run that failed before its first step leaves no status.json.
    void end(RunState state, const std::string& text);

  private:
    void run();
    void write_status();

    RunView view_;
    Progress progress_;
    std::unique_ptr<WebServer> web_;
    std::string page_;
    std::mutex mutex_;  // of what follows
    std::condition_variable stop_wanted_;
    bool stopping_ = false;
    std::string status_path_;
    std::uint64_t status_revision_ = 0;
    bool status_failed_ = false;
    std::thread thread_;  // the last: it uses all of the above
};

}  // namespace ecopipe
