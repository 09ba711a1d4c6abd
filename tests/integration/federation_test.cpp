// Two clusters and a server, as an operator starts them.
#include <signal.h>

#include <algorithm>
#include <cmath>
#include <cstring>

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

// The cluster has some 100 samples of each of two classes.
void expect_rounded_labels(const std::string& state, const std::string& cluster) {
    Json counts;
    for (int i = 0; i < 100 && counts.empty(); ++i) {
        const Finished status =
            run({"ecopipe-fl-server", "status", "--json", "--state", state}, kDeadlineS);
        if (status.code != 0) continue;
        const Json view = Json::parse(status.out);
        for (const Json& site : view.at("sites"))
            if (site.at("cluster") == cluster) counts = site.at("label_counts");
    }
    ASSERT_EQ(counts.size(), 10U);
    for (std::size_t label = 0; label < counts.size(); ++label) {
        if (label < 2)
            EXPECT_TRUE(counts[label] == 64 || counts[label] == 128) << counts;
        else
            EXPECT_EQ(counts[label], 0) << counts;
    }
}

// The float weights of a safetensors file, all tensors in one.
std::vector<float> weights_of(const std::string& path) {
    const std::string bytes = read(path);
    std::uint64_t header = 0;
    EXPECT_GE(bytes.size(), sizeof header) << path;
    if (bytes.size() < sizeof header) return {};
    std::memcpy(&header, bytes.data(), sizeof header);
    const std::string data = bytes.substr(sizeof header + header);
    std::vector<float> weights(data.size() / sizeof(float));
    std::memcpy(weights.data(), data.data(), weights.size() * sizeof(float));
    return weights;
}

TEST_F(Federation, TheServersClipBoundsEveryStepOfItsClusters) {
    // Two rounds of 200 samples in batches of 50: eight steps, each of at most lr * clip.
    constexpr double kBound = 8 * 0.5 * 0.01;
    write(directory_ / "server.yaml",
          "client: {epochs: 1, batch: 50, momentum: 0, lr: 0.5, clip: 0.01}\n");
    Process server(
        server_flags("state", {"--config", directory_ / "server.yaml", "--min-clusters", "1"}));
    Process a(client_flags("a", "0,1", {"--single"}));
    EXPECT_EQ(server.wait(kDeadlineS).code, 0) << server.err();
    EXPECT_EQ(a.wait(kDeadlineS).code, 0) << a.err();
    const auto before = weights_of(directory_ / "state/models/0.safetensors");
    const auto after = weights_of(directory_ / "state/model.safetensors");
    ASSERT_EQ(before.size(), after.size());
    double squares = 0;
    for (std::size_t i = 0; i < before.size(); ++i)
        squares += std::pow(static_cast<double>(after[i]) - static_cast<double>(before[i]), 2);
    EXPECT_GT(std::sqrt(squares), kBound / 8);
    EXPECT_LT(std::sqrt(squares), kBound * 1.01);
}

TEST_F(Federation, ContradictionsSecondNamesAndOtherModelsAreRefused) {
    write(directory_ / "server.yaml", "client: {batch: 16}\n");
    Process server(server_flags(
        "state", {"--config", directory_ / "server.yaml", "--peer-timeout-s", "2"}));
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
    Process first(client_flags("one", "0,1", {"--single", "--report-labels", "rounded"}));
    ASSERT_TRUE(server.wait_for_err("cluster one joined", kDeadlineS));
    expect_rounded_labels(directory_ / "state", "one");
    auto again = client_flags("one", "0,1", {"--single"});
    *std::find(again.begin(), again.end(), directory_ / "one") = directory_ / "another";
    const Finished second = run(again, kDeadlineS);
    EXPECT_EQ(second.code, 2);
    EXPECT_NE(second.err.find("is connected already and goes on answering"), std::string::npos)
        << second.err;
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

// The server has not missed the first when the second comes: it takes its name and its task.
TEST_F(Federation, AClusterKilledAndStartedAgainAtOnceTakesPart) {
    Process server(server_flags("state"));
    ASSERT_TRUE(server.wait_for_err("listening", kDeadlineS)) << server.err();
    Process other(client_flags("other", "5,6,7,8,9", {"--single"}));
    Process first(client_flags("one", "0,1,2,3,4", {"--single", "--epochs", "100000"}));
    ASSERT_TRUE(server.wait_for_err("cluster one joined", kDeadlineS)) << server.err();
    first.signal(SIGKILL);
    auto again = client_flags("one", "0,1,2,3,4", {"--single"});
    *std::find(again.begin(), again.end(), directory_ / "one") = directory_ / "again";
    Process second(again);
    EXPECT_EQ(server.wait(kDeadlineS).code, 0) << server.err();
    EXPECT_EQ(second.wait(kDeadlineS).code, 0) << second.err();
    EXPECT_EQ(other.wait(kDeadlineS).code, 0) << other.err();
    EXPECT_NE(server.err().find("cluster one is back as another process"), std::string::npos)
        << server.err();
    const std::string log = read(directory_ / "state/rounds.jsonl");
    const auto line = parse_json(log.substr(0, log.find('\n')), "rounds.jsonl");
    EXPECT_EQ(line->at("clusters"), Json::array({"one", "other"})) << log;
    EXPECT_EQ(line->at("rejected").size(), 0U) << log;
}

// As a machine that lost its power leaves it: nothing closes the connection.
TEST_F(Federation, AClusterWhosePredecessorIsSilentWaitsForItsName) {
    Process server(server_flags("state", {"--min-clusters", "1"}));
    ASSERT_TRUE(server.wait_for_err("listening", kDeadlineS)) << server.err();
    Process first(client_flags("one", "0,1,2,3,4", {"--single", "--epochs", "100000"}));
    ASSERT_TRUE(server.wait_for_err("cluster one joined", kDeadlineS)) << server.err();
    auto again = client_flags("one", "0,1,2,3,4", {"--single"});
    *std::find(again.begin(), again.end(), directory_ / "one") = directory_ / "again";
    Process second(again);
    ASSERT_TRUE(second.wait_for_err("takes this cluster not yet: a cluster named one is connected "
                                    "already, unless it is gone and not yet missed; waiting",
                                    kDeadlineS))
        << second.err();
    first.signal(SIGSTOP);
    EXPECT_EQ(server.wait(kDeadlineS).code, 0) << server.err();
    EXPECT_EQ(second.wait(kDeadlineS).code, 0) << second.err();
    first.signal(SIGKILL);
}

TEST_F(Federation, NoServerIsAClearRefusal) {
    const Finished alone =
        run(client_flags("a", "0,1", {"--single", "--join-timeout-s", "1"}), kDeadlineS);
    EXPECT_EQ(alone.code, 4);
    EXPECT_NE(alone.err.find("did not answer within 1 s"), std::string::npos) << alone.err;
}

}  // namespace
}  // namespace ecopipe::test
