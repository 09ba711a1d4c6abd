#pragma once
// A process that works for this one: a program started with one end of a socket pair as its
// standard input, over which both speak worker_frames. It ends when the socket closes, and with
// this process (see `serve_as_worker`).

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>

#include "core/result.h"
#include "fl_server/workers/worker_frames.h"

namespace ecopipe {

class WorkerProcess {
  public:
    // `program`: its path; `command`: its one argument; `patience_s`: how long it may neither take
    // nor give a byte while it is waited for. Errors: kRunFailed.
    [[nodiscard]] static Result<WorkerProcess> start(const std::string& program,
                                                     const std::string& command,
                                                     std::uint64_t patience_s);
    WorkerProcess(WorkerProcess&& other) noexcept;
    WorkerProcess(const WorkerProcess&) = delete;
    WorkerProcess& operator=(const WorkerProcess&) = delete;
    WorkerProcess& operator=(WorkerProcess&&) = delete;
    ~WorkerProcess();  // ends it, even in the middle of its work

    [[nodiscard]] int descriptor() const { return descriptor_; }
    [[nodiscard]] Result<void> send(WorkerFrame kind, const Json& header,
                                    std::string_view bytes) const;
    // Waits. An answered error is a message, too (see `success_of`). Errors: kRunFailed when it is
    // gone or the patience has ended; then it is of no more use.
    [[nodiscard]] Result<WorkerMessage> receive() const;

  private:
    WorkerProcess(int descriptor, pid_t process) : descriptor_(descriptor), process_(process) {}

    int descriptor_ = -1;
    pid_t process_ = 0;
};

// Errors: what the worker answered with, when that is one.
[[nodiscard]] Result<WorkerMessage> success_of(WorkerMessage answer);

// The other end: serves the socket until it closes. An error of `answer` is sent back, and the next
// message waited for. Ctrl-C at a terminal and systemd's stop reach all processes: what becomes of
// this one is the parent's decision.
[[nodiscard]] Result<ExitCode> serve_as_worker(
    int descriptor, const std::function<Result<void>(const WorkerMessage&)>& answer);

}  // namespace ecopipe
