// What ends a program that nobody can help: one line and exit code 1, from whatever thread.
#include "core/last_words.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <functional>
#include <new>
#include <stdexcept>
#include <thread>

#include "core/command_line.h"

namespace ecopipe {
namespace {

#if defined(__SANITIZE_THREAD__)
constexpr bool kThreadSanitizer = true;
#elif defined(__has_feature)
constexpr bool kThreadSanitizer = __has_feature(thread_sanitizer);
#else
constexpr bool kThreadSanitizer = false;
#endif
// ThreadSanitizer cannot work in an address space that has an end.
#define ECOPIPE_NEEDS_LIMITED_ADDRESSES() \
    if (kThreadSanitizer) GTEST_SKIP() << "not under ThreadSanitizer"

class LastWords : public testing::Test {
  protected:
    void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
    static void in_a_thread(const std::function<void()>& work) { std::thread(work).join(); }
    static void limit_address_space() {
        rlimit space{};
        ::getrlimit(RLIMIT_AS, &space);
        space.rlim_cur = 64U << 20;  // below what the process has
        ::setrlimit(RLIMIT_AS, &space);
    }
};

TEST_F(LastWords, AnAllocationThatFailsInAThread) {
    EXPECT_EXIT(
        {
            install_last_words("prog");
            in_a_thread([] { throw std::bad_alloc(); });
        },
        testing::ExitedWithCode(1), "^prog: out of memory\n$");
}

TEST_F(LastWords, AnyOtherExceptionInAThreadByItsFirstLine) {
    EXPECT_EXIT(
        {
            install_last_words("prog");
            in_a_thread([] { throw std::runtime_error("no\tthread\nbacktrace"); });
        },
        testing::ExitedWithCode(1), "^prog: no thread\n$");
}

TEST_F(LastWords, AnExceptionThatLeavesANoexceptFunction) {
    EXPECT_EXIT(
        {
            install_last_words("prog");
            // Not a plain throw, which the compiler warns about.
            const std::function<void()> fails = [] { throw std::bad_alloc(); };
            [&]() noexcept { fails(); }();
        },
        testing::ExitedWithCode(1), "^prog: out of memory\n$");
}

TEST_F(LastWords, ALibraryThatAbortsForWantOfMemoryHasSpoken) {
    ECOPIPE_NEEDS_LIMITED_ADDRESSES();
    EXPECT_EXIT(
        {
            install_last_words("prog");
            limit_address_space();
            std::abort();
        },
        testing::ExitedWithCode(1), "^$");
}

TEST_F(LastWords, ALibraryThatUsesWhatItDidNotGet) {
    ECOPIPE_NEEDS_LIMITED_ADDRESSES();
    EXPECT_EXIT(
        {
            limit_address_space();
            install_last_words("prog");
            std::raise(SIGSEGV);
        },
        testing::ExitedWithCode(1), "^prog: out of memory\n$");
}

// What only a bug can cause leaves its core.
TEST_F(LastWords, ABugStillAborts) {
    EXPECT_EXIT(
        {
            install_last_words("prog");
            std::abort();
        },
        testing::KilledBySignal(SIGABRT), "^$");
}

TEST_F(LastWords, AProgramSaysOneLineAndEndsWithItsCode) {
    ECOPIPE_NEEDS_LIMITED_ADDRESSES();
    EXPECT_EXIT(
        std::exit(run_program("prog", []() -> Result<ExitCode> { throw std::bad_alloc(); })),
        testing::ExitedWithCode(1), "^prog: out of memory\n$");
    EXPECT_EXIT(std::exit(run_program("prog",
                                      []() -> Result<ExitCode> {
                                          limit_address_space();
                                          return fail(ExitCode::kUsage, "x");
                                      })),
                testing::ExitedWithCode(2), "^prog: x\n$");
}

}  // namespace
}  // namespace ecopipe
