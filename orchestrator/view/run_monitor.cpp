#include "orchestrator/view/run_monitor.h"

#include <fmt/format.h>

#include <filesystem>

#include "core/files.h"
#include "core/log.h"
#include "core/wall_clock.h"
#include "orchestrator/view/status_file.h"
#include "orchestrator/view/view_document.h"
#include "transport/web/web_page.h"

namespace ecopipe {
namespace {

constexpr auto kDrawEvery = std::chrono::milliseconds(200);
constexpr int kDrawsPerStatus = 5;

}  // namespace

RunMonitor::RunMonitor(bool quiet)
    : view_(unix_ms_now), progress_(quiet, view_), thread_([this] { run(); }) {}

RunMonitor::~RunMonitor() {
    {
        const MutexLock lock(mutex_);
        stopping_ = true;
    }
    stop_wanted_.notify_all();
    thread_.join();
}

void RunMonitor::run() {
    for (int turn = 1;; ++turn) {
        {
            const MutexLock lock(mutex_);
            const Instant due = monotonic_now() + kDrawEvery;
            while (!stopping_ && stop_wanted_.wait_until(mutex_, due)) continue;
            if (stopping_) return;
            if (turn % kDrawsPerStatus == 0) write_status();
        }
        progress_.draw();
    }
}

Result<void> RunMonitor::serve(const Endpoint& address) {
    auto routes =
        web_page_routes([this] { return view_document(view_.snapshot(), unix_ms_now()).dump(); },
                        [this] { return std::to_string(view_.revision()); });
    ECOPIPE_ASSIGN_OR_RETURN(web_, WebServer::start(address, std::move(routes)));
    log_info("page: {}", web_->url());
    const MutexLock lock(mutex_);
    page_ = web_->url();
    return {};
}

void RunMonitor::keep_status(const std::string& directory) {
    const MutexLock lock(mutex_);
    status_path_ = directory + "/status.json";
    write_status();
}

void RunMonitor::write_status() {
    const std::uint64_t revision = view_.revision();
    if (status_path_.empty() || revision == status_revision_) return;
    const auto written = replace_file(
        status_path_, status_text(view_.snapshot(), this_process(), page_, unix_ms_now()));
    status_revision_ = revision;
    if (!written && !status_failed_) log_warn("{}", written.error().message);
    status_failed_ = !written;
}

void RunMonitor::end(RunState state, const std::string& text) {
    view_.end(state, text);
    progress_.finish();
    const MutexLock lock(mutex_);
    write_status();
    std::error_code ignored;
    if (state == RunState::kFailed && view_.snapshot().step == 0 && !status_path_.empty())
        std::filesystem::remove(status_path_, ignored);
    status_path_.clear();
}

}  // namespace ecopipe
