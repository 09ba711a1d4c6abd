#include "core/last_words.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>

#include "core/result.h"

namespace ecopipe {
namespace {

constexpr std::size_t kLineBytesMax = 512;
// More than what libraries ask for when they fail at it: a thread's stack is 8 MiB, an arena of
// malloc 64 MiB, a buffer of OpenBLAS 128 MiB.
constexpr std::size_t kProbeBytes = 256U << 20;
// Of CPU time, that libraries may take to be loaded before they are suspected.
constexpr time_t kInitialisersTakeS = 2;

std::atomic<const char*> g_program{"ecopipe"};
std::atomic_flag g_speaking = ATOMIC_FLAG_INIT;
std::atomic<bool> g_loading{false};  // libraries: main has not been reached
constexpr const char* kShortForLibraries =
    "out of memory: the limit of the address space (ulimit -v) leaves too little for the libraries";

[[noreturn]] void leave() { ::_exit(static_cast<int>(ExitCode::kRunFailed)); }

// There may be nothing left to allocate. The first line of `what` alone: torch puts a stack trace
// behind it.
[[noreturn]] void say(const char* what) {
    // A second thread that fails at the same want has nothing to add.
    if (g_speaking.test_and_set())
        for (;;) ::pause();
    std::array<char, kLineBytesMax> line{};
    const int wanted =
        std::snprintf(line.data(), line.size() - 1, "%s: %s", g_program.load(), what);
    const auto size =
        std::min<std::size_t>(wanted > 0 ? static_cast<std::size_t>(wanted) : 0, line.size() - 2);
    char* const end = std::find(line.data(), line.data() + size, '\n');
    std::replace_if(
        line.data(), end, [](char c) { return static_cast<unsigned char>(c) < ' '; }, ' ');
    *end = '\n';
    static_cast<void>(
        !::write(STDERR_FILENO, line.data(), static_cast<std::size_t>(end + 1 - line.data())));
    leave();
}

bool memory_is_short() {
    void* const place = ::mmap(nullptr, kProbeBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) return errno == ENOMEM;
    ::munmap(place, kProbeBytes);
    return false;
}

[[noreturn]] void on_terminate() {
    if (const std::exception_ptr thrown = std::current_exception()) {
        try {
            std::rethrow_exception(thrown);
        } catch (const std::bad_alloc&) {
            say("out of memory");
        } catch (const std::exception& error) {
            say(error.what());
        } catch (...) {
            say("an error of an unknown kind");
        }
    }
    // A destructor that had to clean up after one exception met another.
    if (std::uncaught_exceptions() > 0 && memory_is_short()) say("out of memory");
    std::abort();
}

// ZeroMQ, OpenMP and glibc abort when they get no memory or no thread, after a line of their own;
// what is only being loaded may do so without.
void on_abort(int) {
    if (memory_is_short()) {
        if (g_loading) say(kShortForLibraries);
        leave();
    }
    std::signal(SIGABRT, SIG_DFL);  // abort() raises it again
}

// OpenBLAS interrupts the process when it cannot start its threads, after lines of its own.
void on_interrupt(int signal) {
    if (memory_is_short()) leave();
    std::signal(signal, SIG_DFL);
    std::raise(signal);
}

// What a null pointer of an allocation that failed leads to, in libraries that do not look.
void on_fault(int signal) {
    if (memory_is_short()) say("out of memory");
    std::signal(signal, SIG_DFL);  // the instruction is run again
}

// OpenBLAS asks for ever for a buffer that finds no room, in its initialiser too.
void on_long_initialisers(int) {
    if (memory_is_short()) say(kShortForLibraries);
}

void look_at_initialisers(time_t every_s) {
    const itimerval timer{{every_s, 0}, {every_s, 0}};
    ::setitimer(ITIMER_PROF, &timer, nullptr);
}

bool address_space_is_limited() {
    rlimit space{};
    return ::getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY;
}

void install_early(int, char** argv, char**) {
    const char* const path = argv[0] != nullptr ? argv[0] : "ecopipe";
    const char* const slash = std::strrchr(path, '/');
    install_last_words(slash != nullptr ? slash + 1 : path);
    if (!address_space_is_limited()) return;
    g_loading = true;
    std::signal(SIGPROF, on_long_initialisers);
    look_at_initialisers(kInitialisersTakeS);
}

// Libraries allocate in their initialisers, torch hundreds of megabytes: this runs before them all.
[[gnu::section(".preinit_array"), gnu::used]] void (*const g_early)(int, char**,
                                                                    char**) = install_early;

}  // namespace

void end_with_last_words(const char* what) { say(what); }

int leave_main(int code) {
    if (!address_space_is_limited()) return code;
    std::fflush(nullptr);
    ::_exit(code);
}

void install_last_words(const char* program) {
    g_program = program;
    std::set_terminate(on_terminate);
    std::signal(SIGABRT, on_abort);
    if (!address_space_is_limited()) return;
    for (const int fault : {SIGSEGV, SIGBUS}) std::signal(fault, on_fault);
    std::signal(SIGINT, on_interrupt);  // until watch_signals
    g_loading = false;                  // main has been reached, if this is not the early call
    look_at_initialisers(0);
}

}  // namespace ecopipe
