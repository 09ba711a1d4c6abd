#pragma once
// Child processes for integration tests: started, waited for with a deadline, never left behind.

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

namespace ecopipe::test {

// Whether to take the time for all cases: ECOPIPE_FULL is set.
[[nodiscard]] bool full();

struct Finished {
    int code = -1;  // exit code, or 128 + signal; -1 when the deadline passed and it was killed
    std::string out;
    std::string err;
};

// Where a program of build/bin lies.
[[nodiscard]] std::string program(const std::string& name);

class Process {
  public:
    // `arguments[0]` is a program of build/bin, or an absolute path. Output is collected in files
    // of a temporary directory.
    explicit Process(std::vector<std::string> arguments);
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;
    ~Process();  // kills and reaps what still runs

    [[nodiscard]] pid_t pid() const { return pid_; }
    void signal(int number) const;
    [[nodiscard]] bool running();
    // Waits up to `seconds`, then kills.
    [[nodiscard]] Finished wait(double seconds);
    [[nodiscard]] std::string out() const;
    [[nodiscard]] std::string err() const;
    // Waits until stderr contains `text`; false at the deadline or when the process ended without
    // it.
    [[nodiscard]] bool wait_for_err(const std::string& text, double seconds);

  private:
    pid_t pid_ = -1;
    int status_ = 0;
    bool reaped_ = false;
    std::string directory_;
};

// What runs `command` with mounts of its own: as whoever may mount, or in a user namespace, which
// is not to be had in a chroot.
[[nodiscard]] std::vector<std::string> with_own_mounts(std::vector<std::string> command);

// Runs to its end.
[[nodiscard]] Finished run(std::vector<std::string> arguments, double seconds = 120);

// A directory that is removed with the object.
class TemporaryDirectory {
  public:
    TemporaryDirectory();
    // In memory where the system has such a place: for what writes much, safely, and is no test of
    // it.
    struct InMemory {};
    explicit TemporaryDirectory(InMemory);
    ~TemporaryDirectory();
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    [[nodiscard]] std::string operator/(const std::string& name) const {
        return path_ + "/" + name;
    }
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    std::string path_;
};

[[nodiscard]] std::string read(const std::string& path);
void write(const std::string& path, const std::string& text);
[[nodiscard]] bool exists(const std::string& path);
// A TCP port that was free a moment ago.
[[nodiscard]] int free_port();
// Processes whose parent is `parent`.
[[nodiscard]] std::vector<pid_t> children_of(pid_t parent);

}  // namespace ecopipe::test
