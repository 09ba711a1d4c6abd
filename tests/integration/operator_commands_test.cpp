// What an operator says to a running server.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <future>
#include <limits>
#include <set>
#include <thread>

#include "core/command_line.h"
#include "core/files.h"
#include "core/random.h"
#include "core/strict_json.h"
#include "tests/integration/federation_server_fixture.h"
#include "tests/support/scripted_cluster.h"

namespace ecopipe::test {
namespace {

class OperatorCommands : public FederationServer {
  protected:
    std::string state_ = directory_ / "state";

    [[nodiscard]] Finished command(const std::string& word, const Flags& more = {}) const {
        Flags line{"ecopipe-fl-server", word, "--state", state_};
        line.insert(line.end(), more.begin(), more.end());
        return run(line, kServerDeadlineS);
    }
    void expect_done(const std::string& word, const Flags& more = {}) const {
        const Finished finished = command(word, more);
        EXPECT_EQ(finished.code, 0) << word << ": " << finished.err;
    }
    [[nodiscard]] Json status() const {
        const Finished finished = command("status", {"--json"});
        EXPECT_EQ(finished.code, 0) << finished.err;
        return Json::parse(finished.out);
    }
    // The first status of which `holds` is true; an empty one at the deadline.
    Json await(const std::function<bool(const Json&)>& holds) const {
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
        while (std::chrono::steady_clock::now() < until) {
            // One that has just begun to listen has no view yet, and says so.
            const Finished finished = command("status", {"--json"});
            if (finished.code != 0) continue;
            if (Json found = Json::parse(finished.out); holds(found)) return found;
        }
        ADD_FAILURE() << "not reached: " << status();
        return {};
    }
};

TEST_F(OperatorCommands, PauseHoldsTasksBackResumeGivesThemAndFinishEndsTheRound) {
    Process server(flags(state_, "2", {"--rounds", "0"}));
    ASSERT_TRUE(server.wait_for_err("listening", kServerDeadlineS)) << server.err();
    std::thread a = honest("a");
    std::thread b = honest("b");
    await([](const Json& view) { return view["version"] >= 1; });
    expect_done("pause");
    const Json paused = await([](const Json& view) { return view["phase"] == "paused"; });
    // The round at hand may end, whose tasks were given before; none comes after it.
    const Finished text = command("status");
    EXPECT_NE(text.out.find("paused"), std::string::npos) << text.out;
    const std::uint64_t most = paused.value("version", std::uint64_t{0}) + 1;
    for (int look = 0; look < 20; ++look) EXPECT_LE(status()["version"], most);
    expect_done("resume");
    await([&](const Json& view) { return view["version"] > most; });
    expect_done("finish");
    const Finished ended = server.wait(kServerDeadlineS);
    EXPECT_EQ(ended.code, 0) << ended.err;
    for (const char* said : {"operator: pause", "operator: resume", "operator: finish"})
        EXPECT_NE(ended.err.find(said), std::string::npos) << ended.err;
    a.join();
    b.join();
    // Without a server only the journal answers.
    EXPECT_EQ(status()["phase"], "not running");
    for (const char* word : {"pause", "resume", "finish"}) EXPECT_EQ(command(word).code, 4) << word;
}

// Not even its control socket or what has arrived of an update.
TEST_F(OperatorCommands, ASecondServerTakesNothingFromTheFirst) {
    Process server(flags(state_, "2", {"--rounds", "0"}));
    ASSERT_TRUE(server.wait_for_err("listening", kServerDeadlineS)) << server.err();
    const std::string port = std::to_string(free_port());
    const Finished second = run({"ecopipe-fl-server", "--bind", "tcp://127.0.0.1:" + port,
                                 "--model", "lenet5", "--state", state_, "--rounds", "0"},
                                kServerDeadlineS);
    EXPECT_EQ(second.code, 2);
    EXPECT_NE(second.err.find("--state " + state_ + ": another process is at work in it"),
              std::string::npos)
        << second.err;
    std::thread a = honest("a");
    std::thread b = honest("b");
    await([](const Json& view) { return view["version"] >= 1; });
    expect_done("finish");
    EXPECT_EQ(server.wait(kServerDeadlineS).code, 0) << server.err();
    a.join();
    b.join();
}

TEST_F(OperatorCommands, AdmitTakesAClusterOutOfQuarantine) {
    write(directory_ / "server.yaml", "limits: {quarantine_after: 1}\n");
    Process server(flags(
        state_, "1",
        {"--rounds", "1", "--config", directory_ / "server.yaml", "--round-timeout-s", "600"}));
    ASSERT_TRUE(server.wait_for_err("listening", kServerDeadlineS)) << server.err();
    bool lied = false;
    std::thread one = cluster("one", [&](FederationLink& link, const Task& task) -> Result<void> {
        const std::string bytes = formula(task, "one");
        OutgoingSlice slice = whole_update(task, bytes);
        if (!std::exchange(lied, true)) slice.announcement.samples = 0;
        ECOPIPE_ASSIGN_OR_RETURN(const Verdict verdict, push(link, slice, bytes));
        static_cast<void>(verdict);
        return {};
    });
    ASSERT_TRUE(server.wait_for_err("the cluster is in quarantine now", kServerDeadlineS))
        << server.err();
    const auto in_quarantine = [](const Json& view) {
        return !view["sites"].empty() && view["sites"][0]["quarantined"] == true;
    };
    await(in_quarantine);
    const Finished stranger = command("admit", {"--cluster", "two"});
    EXPECT_EQ(stranger.code, 2);
    EXPECT_NE(stranger.err.find("cluster two is not in quarantine"), std::string::npos)
        << stranger.err;
    expect_done("admit", {"--cluster", "one"});
    const Finished ended = server.wait(kServerDeadlineS);
    EXPECT_EQ(ended.code, 0) << ended.err;
    EXPECT_NE(ended.err.find("cluster one is admitted again"), std::string::npos) << ended.err;
    one.join();
    EXPECT_EQ(lines_of(read(state_ + "/rounds.jsonl")).size(), 1U);
}

// Evaluations that take longer than a round may, a restore, a pause over a crash, two that depart:
// the clusters are the same processes all the way.
TEST_F(OperatorCommands, AFederationGoesOnThroughAllThatHappensToIt) {
    const auto start = [&](const std::string& min_clusters) {
        auto server = std::make_unique<Process>(
            flags(state_, min_clusters,
                  {"--rounds", "0", "--keep-updates", "--round-timeout-s", "1", "--peer-timeout-s",
                   "2", "--eval-data", "synthetic:1x28x28:10:12000"}));
        EXPECT_TRUE(server->wait_for_err("listening", kServerDeadlineS)) << server->err();
        return server;
    };
    const auto reaches = [&](std::uint64_t version) {
        return await([&](const Json& view) { return view["version"] >= version; });
    };
    auto server = start("3");
    std::atomic<bool> departing{false};
    std::vector<std::thread> clusters;
    for (const std::string name : {"a", "b", "c"})
        clusters.emplace_back([&, name] {
            const auto lived =
                live(server_, name, [&](FederationLink& link, const Task& task) -> Result<void> {
                    if (departing && name != "a") return fail(ExitCode::kRunFailed, "departs");
                    const std::string bytes = formula(task, name);
                    ECOPIPE_RETURN_IF_ERROR(push(link, whole_update(task, bytes), bytes));
                    return {};
                });
            EXPECT_EQ(lived.has_value(), name == "a") << name;
        });
    reaches(2);
    for (const Json& round : lines_of(read(state_ + "/rounds.jsonl"))) {
        EXPECT_EQ(round["clusters"].size(), 3U) << round;
        EXPECT_TRUE(round["rejected"].empty()) << round;
    }
    expect_done("backup", {"--to", directory_ / "copy"});
    reaches(3);
    server->signal(SIGTERM);
    EXPECT_EQ(server->wait(kServerDeadlineS).code, 143) << server->err();
    ASSERT_EQ(run({"/bin/rm", "-rf", state_}).code, 0);
    ASSERT_EQ(run({"/bin/cp", "-r", directory_ / "copy", state_}).code, 0);
    server = start("3");
    reaches(4);
    expect_done("pause");
    server->signal(SIGKILL);
    EXPECT_EQ(server->wait(kServerDeadlineS).code, 128 + SIGKILL);
    server = start("1");
    const Json paused = await([](const Json& view) { return view["phase"] == "paused"; });
    const std::uint64_t most = paused.value("version", std::uint64_t{0}) + 1;
    for (int look = 0; look < 20; ++look) EXPECT_LE(status()["version"], most);
    expect_done("resume");
    reaches(most + 1);
    departing = true;
    for (const std::size_t gone : {1U, 2U}) clusters[gone].join();
    reaches(status()["version"].get<std::uint64_t>() + 2);
    expect_done("finish");
    EXPECT_EQ(server->wait(kServerDeadlineS).code, 0) << server->err();
    clusters[0].join();
    const Finished replayed = command("replay");
    EXPECT_EQ(replayed.code, 0) << replayed.err;
    EXPECT_NE(replayed.out.find(": 0 differ"), std::string::npos) << replayed.out;
}

TEST_F(OperatorCommands, BackupAndReplayOfARunningServersState) {
    Process server(flags(state_, "2", {"--rounds", "0", "--keep-updates"}));
    ASSERT_TRUE(server.wait_for_err("listening", kServerDeadlineS)) << server.err();
    std::thread a = honest("a");
    std::thread b = honest("b");
    await([](const Json& view) { return view["version"] >= 2; });
    expect_done("backup", {"--to", directory_ / "copy"});
    const Finished again = command("backup", {"--to", directory_ / "copy"});
    EXPECT_NE(again.code, 0);
    EXPECT_NE(again.err.find("is not empty"), std::string::npos) << again.err;
    expect_done("finish");
    EXPECT_EQ(server.wait(kServerDeadlineS).code, 0) << server.err();
    a.join();
    b.join();
    for (const std::string& of : {state_, directory_ / "copy"}) {
        state_ = of;
        const Finished replayed = command("replay");
        EXPECT_EQ(replayed.code, 0) << replayed.err;
        EXPECT_NE(replayed.out.find(": 0 differ"), std::string::npos) << replayed.out;
        EXPECT_FALSE(replayed.out.starts_with("0 versions")) << replayed.out;
    }
    EXPECT_GE(status()["version"], 2);
}

// ---- limits on connections

}  // namespace
}  // namespace ecopipe::test
