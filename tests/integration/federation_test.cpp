// Two clusters and a server, as an operator starts them.
#include <signal.h>

#include <algorithm>

#include "core/strict_json.h"
#include "tests/integration/training_fixture.h"

namespace ecopipe::test {
namespace {

using Flags = std::vector<std::string>;
constexpr double kDeadlineS = 120;

class Federation : public Training {
  protected:
    std::string server_ = "tcp://127.0.0.1:" + std::to_string(free_port());

    Flags server_flags(const std::string& state, const Flags& more = {}) {
        Flags flags{"ecopipe-fl-server", "--bind", server_, "--model",  "lenet5", "--state",
                    directory_ / state,  "--seed", "4",     "--rounds", "2"};
        flags.insert(flags.end(), more.begin(), more.end());
        return flags;
    }
    Flags client_flags(const std::string& name, const std::string& classes, const Flags& more) {
        Flags flags{"ecopipe-train", "--model",        "lenet5",       "--data", "fashion-mnist",
                    "--classes",     classes,          "--data-limit", "200",    "--federated",
                    server_,         "--cluster-name", name,           "--out",  directory_ / name,
                    "--quiet"};
        flags.insert(flags.end(), more.begin(), more.end());
        return flags;
    }
};

TEST_F(Federation, TwoClustersLearnOneModelAndPipelinesChangeNoBit) {
    write(directory_ / "plan.json", hand_plan({"", "lenet5", 12}, 2, "1f1b", 32, 4));
    write(directory_ / "server.yaml", "client: {epochs: 2, lr: 0.02}\n");
    std::vector<std::string> models;
    for (const bool pipeline : {false, true}) {
        const std::string tag = pipeline ? "p" : "s";
        const Flags how = pipeline ? Flags{"--local", "--plan", directory_ / "plan.json"}
                                   : Flags{"--single", "--batch", "32", "--micro-batches", "4"};
        Process server(server_flags(tag + "-state", {"--config", directory_ / "server.yaml",
                                                     "--eval-data", "fashion-mnist"}));
        Process a(client_flags(tag + "-a", "0,1,2,3,4", how));
        Process b(client_flags(tag + "-b", "5,6,7,8,9", how));
        const Finished served = server.wait(kDeadlineS);
        EXPECT_EQ(served.code, 0) << served.err;
        const Finished first = a.wait(kDeadlineS);
        EXPECT_EQ(first.code, 0) << first.err;
        EXPECT_EQ(b.wait(kDeadlineS).code, 0);
        models.push_back(read(directory_ / (tag + "-state/model.safetensors")));
        const std::string log = read(directory_ / (tag + "-state/rounds.jsonl"));
        EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 2);
        const auto line = parse_json(log.substr(0, log.find('\n')), "rounds.jsonl");
        ASSERT_TRUE(line);
        EXPECT_EQ((*line)["round"], 1);
        EXPECT_EQ((*line)["samples"], 400);
        EXPECT_EQ((*line)["clusters"].size(), 2U);
        EXPECT_TRUE((*line).contains("accuracy"));
    }
    EXPECT_FALSE(models[0].empty());
    EXPECT_TRUE(models[0] == models[1]);
}

TEST_F(Federation, ContradictionsSecondNamesAndOtherModelsAreRefused) {
    write(directory_ / "server.yaml", "client: {batch: 16}\n");
    Process server(server_flags("state", {"--config", directory_ / "server.yaml"}));
    ASSERT_TRUE(server.wait_for_err("listening", kDeadlineS)) << server.err();
    const Finished contradicting =
        run(client_flags("x", "0,1", {"--single", "--batch", "32"}), kDeadlineS);
    EXPECT_EQ(contradicting.code, 2);
    EXPECT_NE(contradicting.err.find("--batch: the federation's server says 16, found 32"),
              std::string::npos)
        << contradicting.err;
    Flags other = client_flags("y", "0,1", {"--single"});
    *std::find(other.begin(), other.end(), "lenet5") = "fashion_cnn";
    const Finished model = run(other, kDeadlineS);
    EXPECT_EQ(model.code, 2);
    EXPECT_NE(model.err.find("the federation's model is lenet5"), std::string::npos) << model.err;
    Process first(client_flags("one", "0,1", {"--single"}));
    ASSERT_TRUE(server.wait_for_err("cluster one joined", kDeadlineS));
    auto again = client_flags("one", "0,1", {"--single"});
    *std::find(again.begin(), again.end(), directory_ / "one") = directory_ / "another";
    const Finished second = run(again, kDeadlineS);
    EXPECT_EQ(second.code, 2);
    EXPECT_NE(second.err.find("is connected already"), std::string::npos) << second.err;
    server.signal(SIGTERM);
    EXPECT_EQ(server.wait(kDeadlineS).code, 143);
    EXPECT_EQ(first.wait(kDeadlineS).code, 1);
}

TEST_F(Federation, ARoundGoesOnWithoutAClusterThatDied) {
    Process server(server_flags(
        "state", {"--min-clusters", "1", "--round-timeout-s", "5", "--peer-timeout-s", "2"}));
    ASSERT_TRUE(server.wait_for_err("listening", kDeadlineS));
    Process lost(client_flags("lost", "0,1,2,3,4", {"--single", "--epochs", "100000"}));
    ASSERT_TRUE(server.wait_for_err("cluster lost joined", kDeadlineS));
    lost.signal(SIGKILL);
    Process stays(client_flags("stays", "5,6,7,8,9", {"--single"}));
    EXPECT_EQ(server.wait(kDeadlineS).code, 0) << server.err();
    EXPECT_EQ(stays.wait(kDeadlineS).code, 0);
}

TEST_F(Federation, NoServerIsAClearRefusal) {
    const Finished alone =
        run(client_flags("a", "0,1", {"--single", "--join-timeout-s", "1"}), kDeadlineS);
    EXPECT_EQ(alone.code, 4);
    EXPECT_NE(alone.err.find("did not answer within 1 s"), std::string::npos) << alone.err;
}

}  // namespace
}  // namespace ecopipe::test
