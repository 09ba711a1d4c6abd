#include "tests/support/process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace ecopipe::test {
namespace {

using Clock = std::chrono::steady_clock;

std::string make_temporary_directory(
    const std::filesystem::path& below = std::filesystem::temp_directory_path()) {
    std::string pattern = (below / "ecopipe-test-XXXXXX").string();
    return ::mkdtemp(pattern.data()) != nullptr ? pattern : std::string();
}

void redirect(const std::string& path, int descriptor) {
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ::dup2(file, descriptor);
}

}  // namespace

bool full() { return std::getenv("ECOPIPE_FULL") != nullptr; }

std::string program(const std::string& name) { return std::string(ECOPIPE_BIN_DIR) + "/" + name; }

Process::Process(std::vector<std::string> arguments) : directory_(make_temporary_directory()) {
    if (!arguments[0].starts_with('/')) arguments[0] = program(arguments[0]);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const std::string out = directory_ + "/out";
    const std::string err = directory_ + "/err";
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    redirect("/dev/null", STDIN_FILENO);
    redirect(out, STDOUT_FILENO);
    redirect(err, STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
}

Process::~Process() {
    if (!reaped_) {
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }
    std::filesystem::remove_all(directory_);
}

void Process::signal(int number) const { ::kill(pid_, number); }

std::string Process::out() const { return read(directory_ + "/out"); }
std::string Process::err() const { return read(directory_ + "/err"); }

Finished Process::wait(double seconds) {
    const auto deadline = Clock::now() + std::chrono::duration<double>(seconds);
    Finished finished;
    while (!reaped_) {
        if (::waitpid(pid_, &status_, WNOHANG) == pid_) {
            reaped_ = true;
        } else if (Clock::now() > deadline) {
            ::kill(pid_, SIGKILL);
            ::waitpid(pid_, &status_, 0);
            reaped_ = true;
            finished.out = out();
            finished.err = err() + "\n(killed at the test's deadline)";
            return finished;
        } else {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
    }
    finished.code = WIFSIGNALED(status_) ? 128 + WTERMSIG(status_) : WEXITSTATUS(status_);
    finished.out = out();
    finished.err = err();
    return finished;
}

bool Process::running() {
    if (!reaped_ && ::waitpid(pid_, &status_, WNOHANG) == pid_) reaped_ = true;
    return !reaped_;
}

bool Process::wait_for_err(const std::string& text, double seconds) {
    const auto deadline = Clock::now() + std::chrono::duration<double>(seconds);
    while (Clock::now() < deadline) {
        if (err().find(text) != std::string::npos) return true;
        if (!running()) return err().find(text) != std::string::npos;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
}

std::vector<std::string> with_own_mounts(std::vector<std::string> command) {
    std::vector<std::string> words{"/usr/bin/unshare", "--mount"};
    if (::geteuid() != 0) words.emplace_back("--map-root-user");
    words.insert(words.end(), command.begin(), command.end());
    return words;
}

Finished run(std::vector<std::string> arguments, double seconds) {
    Process process(std::move(arguments));
    return process.wait(seconds);
}

TemporaryDirectory::TemporaryDirectory() : path_(make_temporary_directory()) {}
TemporaryDirectory::TemporaryDirectory(InMemory)
    : path_(make_temporary_directory(std::filesystem::exists("/dev/shm")
                                         ? "/dev/shm"
                                         : std::filesystem::temp_directory_path())) {}
TemporaryDirectory::~TemporaryDirectory() { std::filesystem::remove_all(path_); }

std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
}

void write(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
}

bool exists(const std::string& path) { return std::filesystem::exists(path); }

int free_port() {
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    ::bind(socket, generic, size);
    ::getsockname(socket, generic, &size);
    ::close(socket);
    return ntohs(address.sin_port);
}

std::vector<pid_t> children_of(pid_t parent) {
    std::vector<pid_t> children;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
        const std::string name = entry.path().filename().string();
        if (name.find_first_not_of("0123456789") != std::string::npos) continue;
        const std::string stat = read(entry.path().string() + "/stat");
        const std::size_t end = stat.rfind(')');  // the command name may hold anything
        if (end == std::string::npos) continue;
        std::istringstream fields(stat.substr(end + 1));
        char state = 0;
        pid_t its_parent = 0;
        fields >> state >> its_parent;
        if (its_parent == parent && state != 'Z') children.push_back(std::stoi(name));
    }
    return children;
}

}  // namespace ecopipe::test
