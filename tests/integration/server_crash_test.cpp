// The server is killed at random moments while four clusters that speak the protocol, and train by
// a formula instead of torch, go on: not a byte of the result may change.
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <filesystem>
#include <mutex>
#include <set>
#include <thread>

#include "core/random.h"
#include "fl_server/state/journal.h"
#include "tests/integration/training_fixture.h"
#include "tests/support/scripted_cluster.h"

namespace ecopipe::test {
namespace {

constexpr double kServerCrashS = 250;
constexpr int kRounds = 10;

class ServerCrash : public Training {
  protected:
    struct Outcome {
        std::string model;
        std::set<std::uint64_t> acknowledged;
        int kills = 0;
    };

    Outcome run(const std::string& state, int kills, std::uint64_t seed) {
        Outcome outcome;
        const Endpoint server{"127.0.0.1", static_cast<std::uint16_t>(free_port())};
        const std::vector<std::string> flags{"ecopipe-fl-server",
                                             "--bind",
                                             server.text(),
                                             "--model",
                                             "lenet5",
                                             "--state",
                                             directory_ / state,
                                             "--rounds",
                                             "10",
                                             "--min-clusters",
                                             "4",
                                             "--peer-timeout-s",
                                             "5",
                                             "--keep-updates"};
        auto process = std::make_unique<Process>(flags);
        std::mutex mutex;
        std::vector<std::thread> threads;
        for (const char* name : {"a", "b", "c", "d"})
            threads.emplace_back([&, name] {
                const auto lived =
                    live(server, name, [&](FederationLink& link, const Task& task) -> Result<void> {
                        std::this_thread::sleep_for(std::chrono::milliseconds(100));
                        ECOPIPE_ASSIGN_OR_RETURN(const bool accepted,
                                                 answer_honestly(link, task, name));
                        const std::lock_guard lock(mutex);
                        if (accepted) outcome.acknowledged.insert(task.sequence);
                        return {};
                    });
                EXPECT_TRUE(lived) << name << ": " << lived.error().message;
            });
        Rng rng(seed);
        for (; outcome.kills < kills; ++outcome.kills) {
            // From the moment when it listens, or right in its start.
            if (rng.below(4) != 0)
                static_cast<void>(process->wait_for_err("listening", kServerCrashS));
            std::this_thread::sleep_for(std::chrono::milliseconds(rng.below(700)));
            process->signal(SIGKILL);
            if (process->wait(kServerCrashS).code == 0) break;  // it had finished
            process = std::make_unique<Process>(flags);
        }
        const Finished ended = process->wait(kServerCrashS);
        EXPECT_EQ(ended.code, 0) << ended.err;
        for (std::thread& thread : threads) thread.join();
        outcome.model = read(directory_ / (state + "/model.safetensors"));
        const std::string log = read(directory_ / (state + "/rounds.jsonl"));
        EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), kRounds) << log;
        Journal journal = Journal::open(directory_ / (state + "/journal.sqlite"), true).value();
        std::set<std::uint64_t> folded;
        const std::vector<FoldRow> folds = journal.folds(0, 1U << 30U).value();
        for (const FoldRow& fold : folds)
            EXPECT_TRUE(folded.insert(fold.task).second) << "task " << fold.task << " counts twice";
        EXPECT_EQ(folded.size(), 4U * kRounds);
        for (const std::uint64_t task : outcome.acknowledged)
            EXPECT_TRUE(folded.contains(task))
                << "task " << task << " was acknowledged and is lost";
        return outcome;
    }
};

TEST_F(ServerCrash, KilledAtRandomMomentsItEndsWithTheSameBytes) {
    const int kills = full() ? 30 : 6;
    const Outcome calm = run("calm", 0, 1);
    const Outcome killed = run("killed", kills, 2);
    EXPECT_GT(killed.kills, kills / 2);
    ASSERT_FALSE(calm.model.empty());
    EXPECT_TRUE(calm.model == killed.model);
    std::printf("killed %d times, %zu updates acknowledged\n", killed.kills,
                killed.acknowledged.size());
    const Finished replay = ecopipe::test::run(
        {"ecopipe-fl-server", "replay", "--state", directory_ / "killed"}, kServerCrashS);
    EXPECT_EQ(replay.code, 0) << replay.err;
    EXPECT_NE(replay.out.find("10 versions from 40 updates: 0 differ"), std::string::npos)
        << replay.out;
}

}  // namespace
}  // namespace ecopipe::test
