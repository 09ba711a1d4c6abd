// ecopipe-plan and ecopipe-bench as a person meets them: exit codes, one line of refusal, a quick
// start.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>

#include "core/files.h"
#include "core/strict_json.h"
#include "domain/plan.h"
#include "planner/schedule/plan_file.h"
#include "tests/planner/data.h"

namespace ecopipe {
namespace {

const std::string kBin = ECOPIPE_BIN_DIR;

struct Outcome {
    int code = -1;
    std::string text;
};

Outcome run(const std::string& command) {
    Outcome out;
    FILE* pipe = popen((kBin + "/" + command).c_str(), "r");
    if (pipe == nullptr) return out;
    std::array<char, 4096> buffer{};
    while (const std::size_t got = fread(buffer.data(), 1, buffer.size(), pipe))
        out.text.append(buffer.data(), got);
    const int status = pclose(pipe);
    out.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return out;
}

class Cli : public testing::Test {
  protected:
    void SetUp() override {
        directory_ = testing::TempDir() + fmt::format("planner_cli_{}", getpid());
        ASSERT_TRUE(make_directories(directory_));
    }
    void TearDown() override { std::filesystem::remove_all(directory_); }
    [[nodiscard]] std::string file(const char* name) const { return directory_ + "/" + name; }
    [[nodiscard]] std::string write(const char* name, const std::string& text) const {
        EXPECT_TRUE(write_file_atomically(file(name), text));
        return file(name);
    }
    const std::string home_ = "ecopipe-plan --cluster " + planner_data() + "home.yaml --profile " +
                              planner_data() + "hub.json ";
    std::string directory_;
};

TEST_F(Cli, WritesThePlanThePictureAndTheTrace) {
    const Outcome words = run(
        home_ + fmt::format("--out {0}/plan.json --svg {0}/p.svg --trace {0}/t.json", directory_));
    EXPECT_EQ(words.code, 0);
    EXPECT_NE(words.text.find("what would change it:"), std::string::npos);
    const auto plan = read_plan(file("plan.json"));
    ASSERT_TRUE(plan) << plan.error().message;
    EXPECT_FALSE(plan->what_if.empty());
    EXPECT_EQ(read_file(file("p.svg"), 1 << 24)->find("<svg"), 0U);
    EXPECT_TRUE(parse_json(*read_file(file("t.json"), 1 << 24), "t"));
    const Outcome json = run(home_ + "--json");
    EXPECT_EQ(json.text, *read_file(file("plan.json"), 1 << 24));
}

TEST_F(Cli, TakesAUsersScheduleIntoASelfContainedPlan) {
    const Outcome outcome =
        run(home_ + "--schedule " + planner_data() + "own.csv --out " + file("plan.json"));
    EXPECT_EQ(outcome.code, 0) << outcome.text;
    const auto plan = read_plan(file("plan.json"));
    ASSERT_TRUE(plan) << plan.error().message;
    EXPECT_EQ(plan->schedule, "own");
    EXPECT_EQ(plan->micro_batches, 3);
    EXPECT_EQ(*plan->stages[0].actions, "F0,F1,F2,B0,B2,B1");
}

TEST_F(Cli, RefusesInOneLineWithTheRightCode) {
    const auto expect = [&](const std::string& command, int code, const std::string& start) {
        const Outcome outcome = run(command + " 2>&1 >/dev/null");
        EXPECT_EQ(outcome.code, code) << command << outcome.text;
        EXPECT_EQ(outcome.text.find(start), 0U) << outcome.text;
        EXPECT_EQ(std::count(outcome.text.begin(), outcome.text.end(), '\n'), 1) << outcome.text;
    };
    expect("ecopipe-plan", 2, "ecopipe-plan: --cluster: expected a file, found none");
    expect(home_ + "--batch 0", 2, "ecopipe-plan: --batch: expected an integer");
    expect(home_ + "--micro-batches many", 2,
           "ecopipe-plan: --micro-batches: expected auto or an integer");
    expect(home_ + "--micro-batches 65", 2,
           "ecopipe-plan: --micro-batches: expected at most the batch of 64");
    expect(home_ + "--schedule fast", 2, "ecopipe-plan: --schedule: expected auto, gpipe");
    expect(home_ + "--schedule /nonexistent.csv", 3, "ecopipe-plan: ");
    expect(home_ + "--schedule " + planner_data() + "own.csv --micro-batches 4", 2,
           "ecopipe-plan: --micro-batches: expected 3");
    expect(home_ + "--schedule " + planner_data() + "own.csv --batch 2", 2,
           "ecopipe-plan: --schedule: expected the 3 micro-batches");
    expect(home_ + "--surprise", 2, "ecopipe-plan: ");
    expect(home_ + "--out /nonexistent/plan.json", 1, "ecopipe-plan: ");
    const std::string brackets = write("brackets.json", std::string(10 << 20, '['));
    expect("ecopipe-plan --cluster " + planner_data() + "home.yaml --profile " + brackets, 3,
           "ecopipe-plan: " + brackets + ": nested deeper");
    expect("ecopipe-plan --cluster " + brackets + " --profile " + planner_data() + "hub.json", 3,
           "ecopipe-plan: " + brackets + ": nested deeper");
    const std::string newer = write("newer.json", "{\"schema\": \"ecopipe.profile/9\"}");
    expect("ecopipe-plan --cluster " + planner_data() + "home.yaml --profile " + newer, 5,
           "ecopipe-plan: " + newer + ": schema: expected");
    const std::string small =
        write("small.yaml",
              "name: s\nportal: a\nportal_address: x\ndevices: [{name: a, memory_mib: 70}]\n");
    expect("ecopipe-plan --cluster " + small + " --profile " + planner_data() + "hub.json", 3,
           "ecopipe-plan: " + small + ": devices[0].memory_mib: expected memory for a plan");
    const std::string hole = write("hole.csv", "F0,F1,B0,B1\nF0,B0,F1\n");
    expect(home_ + "--schedule " + hole, 3, "ecopipe-plan: " + hole + ": line 2: expected");
    const std::string many = write("many.csv", "F0,B0\nF0,B0\nF0,B0\nF0,B0\nF0,B0\n");
    expect(home_ + "--schedule " + many, 2, "ecopipe-plan: --schedule: expected at most 4 devices");
}

// The cluster file may name them all.
TEST_F(Cli, ProfilesAreGivenByFlagOrByTheClusterFile) {
    const std::string devices =
        "name: p\nportal: hub\nportal_address: x\ndevices: [{name: hub, memory_mib: 4096";
    const std::string without = write("without.yaml", devices + "}]\n");
    const Outcome refused = run("ecopipe-plan --cluster " + without + " 2>&1");
    EXPECT_EQ(refused.code, 2);
    EXPECT_EQ(refused.text, "ecopipe-plan: --profile: expected a file, found none, and " + without +
                                " names none\n");
    const std::string named =
        write("named.yaml", devices + ", profile: " + planner_data() + "hub.json}]\n");
    const Outcome planned = run("ecopipe-plan --cluster " + named + " 2>&1");
    EXPECT_EQ(planned.code, 0) << planned.text;
}

TEST_F(Cli, BenchComparesSchedules) {
    const Outcome json =
        run("ecopipe-bench schedules --stages 4 --micro-batches 8 --json --svg " + file("b.svg"));
    ASSERT_EQ(json.code, 0);
    const auto parsed = parse_json(json.text, "bench");
    ASSERT_TRUE(parsed);
    const Json rows = (*parsed)["rows"];
    const auto step = [&](const std::string& schedule) {
        for (const Json& row : rows)
            if (row["schedule"] == schedule) return row["step_ms"].get<double>();
        return 0.0;
    };
    EXPECT_DOUBLE_EQ(step("gpipe"), 33);
    EXPECT_DOUBLE_EQ(step("1f1b"), 33);
    EXPECT_DOUBLE_EQ(step("interleaved"), 28.5);
    EXPECT_DOUBLE_EQ(step("zb-h1"), 27);
    EXPECT_DOUBLE_EQ(step("v-half"), 29.5);
    EXPECT_EQ(rows[1]["peak_in_flight"], Json({4, 3, 2, 1}));
    const Outcome files =
        run("ecopipe-bench schedules --batch 32 --micro-batches 8 --cluster " + planner_data() +
            "home.yaml --profile " + planner_data() + "hub.json --json");
    EXPECT_EQ(files.code, 0);
    EXPECT_EQ((*parse_json(files.text, "bench"))["rows"].size(), 6U);
    EXPECT_EQ(run("ecopipe-bench 2>/dev/null").code, 2);
    EXPECT_EQ(run("ecopipe-bench schedules --stages 0 --micro-batches 8 2>/dev/null").code, 2);
    EXPECT_EQ(
        run("ecopipe-bench schedules --stages 3 --micro-batches 8 --forward-ms 1,2 2>/dev/null")
            .code,
        2);
    EXPECT_EQ(
        run("ecopipe-bench schedules --stages 3 --micro-batches 8 --forward-ms nan 2>/dev/null")
            .code,
        2);
    EXPECT_EQ(run("ecopipe-bench --help").code, 0);
}

double children_ms() {
    rusage usage{};
    getrusage(RUSAGE_CHILDREN, &usage);
    const auto ms = [](const timeval& t) {
        return 1000.0 * static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1000;
    };
    return ms(usage.ru_utime) + ms(usage.ru_stime);
}

TEST_F(Cli, StartsInMillisecondsWithoutTorchOrSockets) {
    double least = 1e9;
    for (int i = 0; i < 10; ++i) {
        const double before = children_ms();
        EXPECT_EQ(run("ecopipe-plan --help").code, 0);
        least = std::min(least, children_ms() - before);
    }
    EXPECT_LT(least, 20);  // CPU time, the shell's included: no other load can make it fail
    FILE* pipe = popen(("ldd " + kBin + "/ecopipe-plan").c_str(), "r");
    ASSERT_NE(pipe, nullptr);
    std::array<char, 65536> libraries{};
    const std::size_t got = fread(libraries.data(), 1, libraries.size() - 1, pipe);
    pclose(pipe);
    const std::string_view text(libraries.data(), got);
    EXPECT_NE(text.find("libc.so"), std::string_view::npos);
    for (const char* unwanted : {"libtorch", "libzmq", "libc10"})
        EXPECT_EQ(text.find(unwanted), std::string_view::npos) << unwanted;
}

}  // namespace
}  // namespace ecopipe
