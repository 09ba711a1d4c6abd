#include "fl_server/workers/worker_process.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

extern char** environ;

namespace ecopipe {

Result<WorkerProcess> WorkerProcess::start(const std::string& program, const std::string& command,
                                           std::uint64_t patience_s) {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
        return fail(ExitCode::kRunFailed,
                    fmt::format("a worker's socket: {}", std::strerror(errno)));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
    std::string path = program;
    std::string argument = command;
    std::array<char*, 3> arguments{path.data(), argument.data(), nullptr};
    pid_t process = 0;
    const int error =
        ::posix_spawn(&process, program.c_str(), &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    if (error != 0) {
        ::close(ends[0]);
        return fail(ExitCode::kRunFailed,
                    fmt::format("{} cannot start: {}", program, std::strerror(error)));
    }
    const timeval patience{static_cast<time_t>(patience_s), 0};
    for (const int way : {SO_RCVTIMEO, SO_SNDTIMEO})
        ::setsockopt(ends[0], SOL_SOCKET, way, &patience, sizeof patience);
    return WorkerProcess(ends[0], process);
}

WorkerProcess::WorkerProcess(WorkerProcess&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      process_(std::exchange(other.process_, 0)) {}

WorkerProcess::~WorkerProcess() {
    if (process_ == 0) return;
    ::close(descriptor_);
    ::kill(process_, SIGKILL);
    while (::waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
    }
}

Result<void> WorkerProcess::send(WorkerFrame kind, const Json& header,
                                 std::string_view bytes) const {
    return send_worker_message(descriptor_, kind, header, bytes);
}

Result<WorkerMessage> WorkerProcess::receive() const { return receive_worker_message(descriptor_); }

Result<WorkerMessage> success_of(WorkerMessage answer) {
    if (answer.kind == WorkerFrame::kError)
        return fail(static_cast<ExitCode>(answer.header.at("code").get<int>()),
                    answer.header.at("message").get<std::string>());
    return answer;
}

Result<ExitCode> serve_as_worker(int descriptor,
                                 const std::function<Result<void>(const WorkerMessage&)>& answer) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    std::signal(SIGINT, SIG_IGN);
    std::signal(SIGTERM, SIG_IGN);
    for (;;) {
        const auto message = receive_worker_message(descriptor);
        if (!message) return ExitCode::kDone;
        if (const auto done = answer(*message); !done)
            ECOPIPE_RETURN_IF_ERROR(send_worker_message(
                descriptor, WorkerFrame::kError,
                {{"code", static_cast<int>(done.error().code)}, {"message", done.error().message}},
                {}));
    }
}

}  // namespace ecopipe
