// Two clusters and a server, as an operator starts them.
#include <signal.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "core/strict_json.h"
#include "tests/integration/training_fixture.h"

namespace ecopipe::test {
namespace {

constexpr double kFederationS = 120;

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
        const Finished served = server.wait(kFederationS);
        EXPECT_EQ(served.code, 0) << served.err;
        const Finished first = a.wait(kFederationS);
        EXPECT_EQ(first.code, 0) << first.err;
        EXPECT_EQ(b.wait(kFederationS).code, 0);
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
            run({"ecopipe-fl-server", "status", "--json", "--state", state}, kFederationS);
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
    EXPECT_EQ(server.wait(kFederationS).code, 0) << server.err();
    EXPECT_EQ(a.wait(kFederationS).code, 0) << a.err();
    const auto before = weights_of(directory_ / "state/models/0.safetensors");
    const auto after = weights_of(directory_ / "state/model.safetensors");
    ASSERT_EQ(before.size(), after.size());
    double squares = 0;
    for (std::size_t i = 0; i < before.size(); ++i)
        squares += std::pow(static_cast<double>(after[i]) - static_cast<double>(before[i]), 2);
    EXPECT_GT(std::sqrt(squares), kBound / 8);
    EXPECT_LT(std::sqrt(squares), kBound * 1.01);
}

// A buffered strategy asks again before there is a new version: it gets another update each time.
TEST_F(Federation, EachTaskOfOneVersionTrainsSomethingElse) {
    write(directory_ / "server.yaml", "strategy: {name: fedbuff, buffer: 3, min_clients: 1}\n");
    Process server(
        server_flags("state", {"--config", directory_ / "server.yaml", "--keep-updates"}));
    Process a(client_flags("a", "0,1", {"--single", "--no-evaluation"}));
    EXPECT_EQ(server.wait(kFederationS).code, 0) << server.err();
    EXPECT_EQ(a.wait(kFederationS).code, 0) << a.err();
    std::set<std::string> updates;
    for (const char* file : {"state/spool/1.0", "state/spool/2.0", "state/spool/3.0"})
        updates.insert(read(directory_ / file));
    EXPECT_EQ(updates.size(), 3U) << server.err();
}

TEST_F(Federation, ContradictionsSecondNamesAndOtherModelsAreRefused) {
    write(directory_ / "server.yaml", "client: {batch: 16}\n");
    Process server(
        server_flags("state", {"--config", directory_ / "server.yaml", "--peer-timeout-s", "2"}));
    ASSERT_TRUE(server.wait_for_err("listening", kFederationS)) << server.err();
    const Finished contradicting =
        run(client_flags("x", "0,1", {"--single", "--batch", "32"}), kFederationS);
    EXPECT_EQ(contradicting.code, 2);
    EXPECT_NE(contradicting.err.find("--batch: the federation's server says 16, found 32"),
              std::string::npos)
        << contradicting.err;
    Flags other = client_flags("y", "0,1", {"--single"});
    *std::find(other.begin(), other.end(), "lenet5") = "fashion_cnn";
    const Finished model = run(other, kFederationS);
    EXPECT_EQ(model.code, 2);
    EXPECT_NE(model.err.find("the federation's model is lenet5"), std::string::npos) << model.err;
    Process first(client_flags("one", "0,1", {"--single", "--report-labels", "rounded"}));
    ASSERT_TRUE(server.wait_for_err("cluster one joined", kFederationS));
    expect_rounded_labels(directory_ / "state", "one");
    auto again = client_flags("one", "0,1", {"--single"});
    *std::find(again.begin(), again.end(), directory_ / "one") = directory_ / "another";
    const Finished second = run(again, kFederationS);
    EXPECT_EQ(second.code, 2);
    EXPECT_NE(second.err.find("is connected already and goes on answering"), std::string::npos)
        << second.err;
    // Who has joined waits for a server that was stopped.
    server.signal(SIGTERM);
    EXPECT_EQ(server.wait(kFederationS).code, 143);
    ASSERT_TRUE(first.wait_for_err("is silent; waiting for it", kFederationS)) << first.err();
    first.signal(SIGTERM);
    EXPECT_EQ(first.wait(kFederationS).code, 143);
}

TEST_F(Federation, ARoundGoesOnWithoutAClusterThatDied) {
    Process server(server_flags(
        "state", {"--min-clusters", "1", "--round-timeout-s", "5", "--peer-timeout-s", "2"}));
    ASSERT_TRUE(server.wait_for_err("listening", kFederationS));
    Process lost(client_flags("lost", "0,1,2,3,4", {"--single", "--epochs", "100000"}));
    ASSERT_TRUE(server.wait_for_err("cluster lost joined", kFederationS));
    lost.signal(SIGKILL);
    Process stays(client_flags("stays", "5,6,7,8,9", {"--single"}));
    EXPECT_EQ(server.wait(kFederationS).code, 0) << server.err();
    EXPECT_EQ(stays.wait(kFederationS).code, 0);
}

// The server has not missed the first when the second comes: it takes its name and its task.
TEST_F(Federation, AClusterKilledAndStartedAgainAtOnceTakesPart) {
    Process server(server_flags("state"));
    ASSERT_TRUE(server.wait_for_err("listening", kFederationS)) << server.err();
    Process other(client_flags("other", "5,6,7,8,9", {"--single"}));
    Process first(client_flags("one", "0,1,2,3,4", {"--single", "--epochs", "100000"}));
    ASSERT_TRUE(server.wait_for_err("cluster one joined", kFederationS)) << server.err();
    first.signal(SIGKILL);
    auto again = client_flags("one", "0,1,2,3,4", {"--single"});
    *std::find(again.begin(), again.end(), directory_ / "one") = directory_ / "again";
    Process second(again);
    EXPECT_EQ(server.wait(kFederationS).code, 0) << server.err();
    EXPECT_EQ(second.wait(kFederationS).code, 0) << second.err();
    EXPECT_EQ(other.wait(kFederationS).code, 0) << other.err();
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
    ASSERT_TRUE(server.wait_for_err("listening", kFederationS)) << server.err();
    Process first(client_flags("one", "0,1,2,3,4", {"--single", "--epochs", "100000"}));
    ASSERT_TRUE(server.wait_for_err("cluster one joined", kFederationS)) << server.err();
    auto again = client_flags("one", "0,1,2,3,4", {"--single"});
    *std::find(again.begin(), again.end(), directory_ / "one") = directory_ / "again";
    Process second(again);
    ASSERT_TRUE(
        second.wait_for_err("takes this cluster not yet: a cluster named one is connected "
                            "already, unless it is gone and not yet missed; waiting",
                            kFederationS))
        << second.err();
    first.signal(SIGSTOP);
    EXPECT_EQ(server.wait(kFederationS).code, 0) << server.err();
    EXPECT_EQ(second.wait(kFederationS).code, 0) << second.err();
    first.signal(SIGKILL);
}

// ---- what labels stand for

class Sites : public Federation {
  protected:
    void SetUp() override {
        // Each has a class 0 of its own; of the last one the federation does not know the first.
        const Finished made = run(
            {kPython, std::string(ECOPIPE_SOURCE_DIR) + "/tests/integration/sites.py",
             directory_ / "data", "a=ant,bee,cow", "b=bee,cow", "c=cow,ant", "d=aardvark,ant,bee"});
        ASSERT_EQ(made.code, 0) << made.err;
    }
    Flags site(const std::string& name, const Flags& more = {}) {
        Flags flags{"ecopipe-train",
                    "--model",
                    "lenet5",
                    "--data",
                    "folder:" + (directory_ / "data/" + name),
                    "--federated",
                    server_,
                    "--cluster-name",
                    name,
                    "--out",
                    directory_ / name,
                    "--single",
                    "--quiet"};
        flags.insert(flags.end(), more.begin(), more.end());
        return flags;
    }
    // The server shows this soon; it waits for more clusters meanwhile.
    bool reports(const std::string& cluster, const Json& label_counts) {
        for (int look = 0; look < 100; ++look) {
            const Finished status =
                run({"ecopipe-fl-server", "status", "--json", "--state", directory_ / "state"},
                    kFederationS);
            if (status.code != 0) continue;
            const Json view = Json::parse(status.out);
            for (const Json& site : view.at("sites"))
                if (site.at("cluster") == cluster &&
                    site.value("label_counts", Json()) == label_counts)
                    return true;
        }
        return false;
    }
    static Json last_line(const std::string& log) {
        const std::size_t end = log.find_last_not_of('\n');
        return Json::parse(log.substr(log.rfind('\n', end) + 1));
    }
};

TEST_F(Sites, OfDifferentClassesLearnOneMeaning) {
    write(directory_ / "server.yaml",
          "classes: [bee, cow, ant]\nclient: {epochs: 2, batch: 8, micro_batches: 1, lr: 0.05}\n");
    Flags flags = server_flags("state", {"--config", directory_ / "server.yaml", "--input",
                                         "3x16x16", "--min-clusters", "3"});
    *std::find(flags.begin(), flags.end(), "2") = "8";
    Process server(flags);
    ASSERT_TRUE(server.wait_for_err("listening", kFederationS)) << server.err();
    const Finished stranger = run(site("d"), kFederationS);
    EXPECT_EQ(stranger.code, 2);
    EXPECT_NE(stranger.err.find("its class aardvark is not among the federation's: bee, cow, ant"),
              std::string::npos)
        << stranger.err;
    // One that tells nothing sees it for itself.
    const Finished silent = run(site("d", {"--report-labels", "none"}), kFederationS);
    EXPECT_EQ(silent.code, 2);
    EXPECT_NE(silent.err.find("--data: its class aardvark is not among the federation's"),
              std::string::npos)
        << silent.err;
    Process a(site("a"));
    Process b(site("b"));
    ASSERT_TRUE(server.wait_for_err("cluster b joined", kFederationS)) << server.err();
    EXPECT_TRUE(reports("b", Json::array({16, 16, 0})));
    Process c(site("c", {"--report-labels", "rounded"}));
    EXPECT_EQ(server.wait(kFederationS).code, 0) << server.err();
    for (Process* one : {&a, &b, &c}) EXPECT_EQ(one->wait(kFederationS).code, 0) << one->err();
    // With class 0 of each its own, the sites would unlearn one another's.
    const Json line = last_line(read(directory_ / "state/rounds.jsonl"));
    for (const char* name : {"a", "b", "c"})
        EXPECT_GT(line["clients"][name]["accuracy"].get<double>(), 0.9) << line;
    // The list is the federation's from now on.
    write(directory_ / "server.yaml", "classes: [ant, bee, cow]\n");
    const Finished other = run(flags, kFederationS);
    EXPECT_EQ(other.code, 2);
    EXPECT_NE(other.err.find("its classes are bee, cow, ant, found ant, bee, cow"),
              std::string::npos)
        << other.err;
}

TEST_F(Sites, WithoutAListTheFirstTellsItAndTheServersDataFollow) {
    Flags flags =
        server_flags("state", {"--input", "3x16x16", "--num-classes", "3", "--min-clusters", "2"});
    Process server(flags);
    ASSERT_TRUE(server.wait_for_err("listening", kFederationS)) << server.err();
    Process a(site("a"));
    ASSERT_TRUE(server.wait_for_err(
        "the federation's classes are those of cluster a: ant, bee, cow", kFederationS))
        << server.err();
    Process b(site("b"));
    EXPECT_EQ(server.wait(kFederationS).code, 0) << server.err();
    EXPECT_EQ(a.wait(kFederationS).code, 0) << a.err();
    EXPECT_EQ(b.wait(kFederationS).code, 0) << b.err();
    // Evaluation data are mapped to the list too, or refused by name.
    write(directory_ / "server.yaml", "classes: [cow, bee, ant]\n");
    const auto serve = [&](const std::string& data) {
        return server_flags("other", {"--config", directory_ / "server.yaml", "--eval-data",
                                      "folder:" + (directory_ / "data/" + data)});
    };
    const Finished refused = run(serve("d"), kFederationS);
    EXPECT_EQ(refused.code, 2);
    EXPECT_NE(refused.err.find("--eval-data: its class aardvark is not among"), std::string::npos)
        << refused.err;
    Process mapped(serve("b"));
    EXPECT_TRUE(mapped.wait_for_err("listening", kFederationS)) << mapped.err();
    mapped.signal(SIGTERM);
    EXPECT_EQ(mapped.wait(kFederationS).code, 143);
}

// ---- tests that a cluster does or does not do

TEST_F(Federation, NoEvaluationHoldsAndTheServerSaysThatItGetsNone) {
    Process server(server_flags("state", {"--min-clusters", "1"}));
    ASSERT_TRUE(server.wait_for_err("listening", kFederationS)) << server.err();
    Process one(client_flags("one", "0,1", {"--single", "--no-evaluation"}));
    const Finished served = server.wait(kFederationS);
    EXPECT_EQ(served.code, 0) << served.err;
    EXPECT_EQ(one.wait(kFederationS).code, 0) << one.err();
    const std::string said = "no cluster tests the models that it gets";
    const std::size_t first = served.err.find(said);
    EXPECT_NE(first, std::string::npos) << served.err;
    EXPECT_EQ(served.err.find(said, first + 1), std::string::npos) << "once";
    EXPECT_EQ(read(directory_ / "state/rounds.jsonl").find("client_accuracy"), std::string::npos);
    EXPECT_FALSE(exists(directory_ / "state/best.safetensors"));
    EXPECT_EQ(read(directory_ / "one/metrics.jsonl").find("base_accuracy"), std::string::npos);
}

// How a model is tested does not depend on how it is trained.
TEST_F(Federation, NoBatchChangesWhatATestFinds) {
    std::vector<std::string> tested;
    for (const Flags& how : {Flags{"--batch", "1", "--micro-batches", "1"},
                             Flags{"--batch", "64", "--micro-batches", "1"},
                             Flags{"--batch", "30", "--micro-batches", "7"}}) {
        const std::string name = "alone" + std::to_string(tested.size());
        Flags flags{"ecopipe-train", "--model", "lenet5",         "--data", "fashion-mnist",
                    "--steps",       "1",       "--lr",           "0",      "--single",
                    "--quiet",       "--out",   directory_ / name};
        flags.insert(flags.end(), how.begin(), how.end());
        const Finished trained = run(flags, kFederationS);
        EXPECT_EQ(trained.code, 0) << trained.err;
        const Json results = Json::parse(read(directory_ / (name + "/run.json")))["results"];
        tested.push_back(results["test_loss"].dump() + " " + results["test_accuracy"].dump());
    }
    EXPECT_EQ(tested[0], tested[1]);
    EXPECT_EQ(tested[0], tested[2]);
}

TEST_F(Federation, NoServerIsAClearRefusal) {
    const Finished alone =
        run(client_flags("a", "0,1", {"--single", "--join-timeout-s", "1"}), kFederationS);
    EXPECT_EQ(alone.code, 4);
    EXPECT_NE(alone.err.find("did not answer within 1 s"), std::string::npos) << alone.err;
}

}  // namespace
}  // namespace ecopipe::test
