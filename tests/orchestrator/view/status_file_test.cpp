#include "orchestrator/view/status_file.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ctime>
#include <vector>

#include "core/files.h"
#include "core/wall_clock.h"
#include "tests/support/process.h"

namespace ecopipe {
namespace {

class StatusFile : public testing::Test {
  protected:
    void SetUp() override {
        run_.title = "lenet5 on fashion-mnist";
        run_.state = RunState::kRunning;
        run_.step = 5;
        run_.step_unix_ms = 100000;
    }
    RunStatus look(const ProcessIdentity& process) {
        test::write(directory_ / "status.json",
                    status_text(run_, process, "http://127.0.0.1:1/", 100500));
        return *look_at_run(directory_.path(), 103000);
    }
    RunSnapshot run_;
    test::TemporaryDirectory directory_;
};

TEST_F(StatusFile, TellsARunThatLives) {
    const RunStatus status = look(this_process());
    EXPECT_EQ(status.state, "running");
    EXPECT_EQ(status.text,
              "running (process " + std::to_string(::getpid()) + "), last step 3 s ago");
    EXPECT_EQ(status.page, "http://127.0.0.1:1/");
    EXPECT_EQ(status.run.step, 5U);
}

// The start is the 22nd field of /proc/PID/stat; its neighbours change while a program runs.
TEST_F(StatusFile, AProcessThatGrowsStaysTheSame) {
    const ProcessIdentity before = this_process();
    timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    const double started_s =
        static_cast<double>(before.start_ticks) / static_cast<double>(::sysconf(_SC_CLK_TCK));
    EXPECT_LE(started_s, static_cast<double>(now.tv_sec + 1));
    EXPECT_GT(started_s, static_cast<double>(now.tv_sec) - 3600);
    const std::vector<char> memory(64U << 20U, 'x');
    EXPECT_EQ(memory.back(), 'x');
    EXPECT_TRUE(this_process() == before);
}

TEST_F(StatusFile, TellsARunThatDiedFromOneThatEnded) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    ProcessIdentity gone = this_process();
    gone.pid = child;
    ::waitpid(child, nullptr, 0);
    EXPECT_EQ(look(gone).state, "died");
    ProcessIdentity reused = this_process();
    ++reused.start_ticks;  // the number is another process's now
    EXPECT_EQ(look(reused).state, "died");
    ProcessIdentity before_reboot = this_process();
    before_reboot.boot = "another";
    EXPECT_EQ(look(before_reboot).state, "died");
    run_.state = RunState::kEnded;
    run_.state_text = "60 steps";
    EXPECT_EQ(look(gone).text, "ended: 60 steps, last step 3 s ago");
}

TEST_F(StatusFile, DoesNotJudgeAnotherMachinesProcesses) {
    ProcessIdentity other = this_process();
    other.host += "-not";
    EXPECT_EQ(look(other).state, "unknown");
}

TEST_F(StatusFile, FallsBackToTheMetrics) {
    EXPECT_EQ(look_at_run(directory_.path(), 1).error().code, ExitCode::kBadFile);
    test::write(directory_ / "metrics.jsonl",
                "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":2.25}\n{\"ste");
    for (const char* damaged : {"", "{", "[]", "{\"schema\":\"ecopipe.status/1\"}"}) {
        test::write(directory_ / "status.json", damaged);
        const auto status = look_at_run(directory_.path(), unix_ms_now());
        ASSERT_TRUE(status) << damaged;
        EXPECT_EQ(status->run.step, 2U);
        EXPECT_EQ(status->state, "unknown");
    }
    test::write(directory_ / "run.json", "{\"results\":{}}");
    EXPECT_EQ(look_at_run(directory_.path(), unix_ms_now())->state, "ended");
}

}  // namespace
}  // namespace ecopipe
