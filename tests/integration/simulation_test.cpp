// ecopipe-fl-sim: same seed, same bytes, whatever the number of workers and however often it is
// interrupted.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <thread>

#include "tests/support/process.h"

namespace ecopipe::test {
namespace {

constexpr double kSimulationS = 240;

std::vector<std::string> flags(const TemporaryDirectory& directory, const std::string& out,
                               const std::string& workers) {
    write(directory / "server.yaml",
          "strategy:\n  - {name: fedasync}\n  - {name: eco-fl, groups: 2, mixing: delta}\n"
          "client: {epochs: 1, batch: 10, lr: 0.05}\n"
          "simulation: {evaluate_every_s: 20, evaluation_samples: 100, drift_every_s: 30}\n");
    return {"ecopipe-fl-sim",
            "--clients",
            "20",
            "--clients-per-round",
            "8",
            "--data",
            "synthetic:1x28x28:10:600",
            "--model",
            "lenet5",
            "--seeds",
            "1,2",
            "--virtual-seconds",
            "120",
            "--config",
            directory / "server.yaml",
            "--workers",
            workers,
            "--out",
            directory / out,
            "--svg",
            directory / (out + ".svg")};
}

const std::vector<std::string> kFiles = {"fedasync-seed1.jsonl", "fedasync-seed2.jsonl",
                                         "eco-fl-seed1.jsonl", "eco-fl-seed2.jsonl",
                                         "summary.json"};

TEST(Simulation, BytesDependOnTheSeedAlone) {
    const TemporaryDirectory directory;
    const Finished one = run(flags(directory, "one", "1"), kSimulationS);
    ASSERT_EQ(one.code, 0) << one.err;
    EXPECT_NE(one.out.find("norm clipping: off, weight cap: off"), std::string::npos) << one.out;
    const Finished three = run(flags(directory, "three", "3"), kSimulationS);
    ASSERT_EQ(three.code, 0) << three.err;
    for (const std::string& file : kFiles)
        EXPECT_EQ(read(directory / ("one/" + file)), read(directory / ("three/" + file))) << file;
    EXPECT_EQ(read(directory / "one.svg"), read(directory / "three.svg"));
    EXPECT_NE(read(directory / "one/eco-fl-seed1.jsonl"),
              read(directory / "one/eco-fl-seed2.jsonl"));

    // Stopped and gone on with, and killed and begun again, to the same bytes.
    int interruptions = 0;
    Finished last;
    for (const int signal : {SIGTERM, SIGKILL, SIGTERM, SIGTERM, 0}) {
        Process process(flags(directory, "broken", "2"));
        if (signal != 0) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1500));
            process.signal(signal);
        }
        last = process.wait(kSimulationS);
        if (last.code == 0) break;
        EXPECT_EQ(last.code, 128 + signal) << last.err;
        ++interruptions;
    }
    ASSERT_EQ(last.code, 0) << last.err;
    EXPECT_GT(interruptions, 0);
    for (const std::string& file : kFiles)
        EXPECT_EQ(read(directory / ("one/" + file)), read(directory / ("broken/" + file))) << file;

    // Other settings do not mix with what is there.
    auto other = flags(directory, "one", "1");
    other[2] = "30";
    const Finished refused = run(other, kSimulationS);
    EXPECT_EQ(refused.code, 2);
    EXPECT_NE(refused.err.find("holds runs with other settings: clients differs"),
              std::string::npos)
        << refused.err;
}

TEST(Simulation, Refusals) {
    const TemporaryDirectory directory;
    const auto refused = [&](std::vector<std::string> more, int code, const std::string& text) {
        more.insert(more.begin(), "ecopipe-fl-sim");
        const Finished finished = run(more, kSimulationS);
        EXPECT_EQ(finished.code, code) << finished.err;
        EXPECT_NE(finished.err.find(text), std::string::npos) << finished.err;
    };
    refused({"--out", directory / "a"}, 2, "--strategy is missing");
    refused({"--strategy", "fedavg"}, 2, "--out is missing");
    refused({"--strategy", "fedsgd", "--out", directory / "a"}, 2, "found 'fedsgd'");
    refused({"--strategy", "fedavg", "--data", "synthetic:1x28x28:10:5", "--out", directory / "a"},
            2, "300 clients, but only 5 samples");
    write(directory / "bad.yaml", "strategy: {name: eco-fl, lamda: 1}\n");
    refused({"--config", directory / "bad.yaml", "--out", directory / "a"}, 3, "lamda");
    const Finished printed = run({"ecopipe-fl-sim", "--strategy", "eco-fl", "--print-config"}, 60);
    EXPECT_EQ(printed.code, 0);
    EXPECT_NE(printed.out.find("lambda: 0.02"), std::string::npos) << printed.out;
}

}  // namespace
}  // namespace ecopipe::test
