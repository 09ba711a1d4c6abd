// Several devices hold one stage, through the programs: how many they are, and what fails on the
// way, changes nothing but the time.
#include <cstdlib>
#include <sstream>

#include "core/files.h"
#include "core/sha256.h"
#include "core/strict_json.h"
#include "tests/integration/training_fixture.h"
#include "tests/support/small_graph_files.h"

namespace ecopipe::test {
namespace {

struct Holder {
    std::string device;
    std::vector<int> blocks;
    int in_flight = 1;
    bool recompute = false;
};
struct Stage {
    int first_layer = 0;
    std::vector<Holder> holders;
};

std::string plan_with_twins(const ModelCase& model, const std::string& schedule, int batch,
                            int micro_batches, const std::vector<Stage>& stages) {
    Json plan{{"schema", "ecopipe.plan/1"},     {"model", model.id},    {"batch", batch},
              {"micro_batches", micro_batches}, {"schedule", schedule}, {"sum_blocks", 4}};
    for (std::size_t s = 0; s < stages.size(); ++s) {
        const int next = s + 1 < stages.size() ? stages[s + 1].first_layer : model.layers;
        Json stage;
        for (const Holder& holder : stages[s].holders) {
            Json entry{{"device", holder.device},
                       {"blocks", holder.blocks},
                       {"in_flight", holder.in_flight},
                       {"recompute", holder.recompute}};
            if (stage.is_null()) {
                stage = entry;
                stage["first_layer"] = stages[s].first_layer;
                stage["last_layer"] = next - 1;
            } else {
                stage["twins"].push_back(entry);
            }
        }
        plan["stages"].push_back(stage);
    }
    return plan.dump();
}

class Twins : public Training {
  protected:
    // The same bytes as one process with as many sum blocks, and the same losses and norms.
    void expect_identical(const ModelCase& model, const Flags& flags,
                          const std::vector<std::string>& plans) {
        const std::string reference = single(model, flags + Flags{"--sum-blocks", "4"}, "single");
        ASSERT_GT(reference.size(), 1000U);
        EXPECT_FALSE(single(model, flags, "one-block") == reference);
        for (std::size_t p = 0; p < plans.size(); ++p) {
            const std::string name = "plan" + std::to_string(p);
            EXPECT_TRUE(local(model, plans[p], flags, name) == reference) << plans[p];
            EXPECT_EQ(numbers(name), numbers("single")) << plans[p];
        }
    }
    [[nodiscard]] std::vector<std::string> numbers(const std::string& run) const {
        std::vector<std::string> out;
        std::istringstream lines(read(directory_ / (run + "/metrics.jsonl")));
        for (std::string line; std::getline(lines, line);) {
            const Json json = Json::parse(line);
            out.push_back(json.value("loss", Json()).dump() + " " +
                          json.value("gradient_norm", Json()).dump());
        }
        return out;
    }
};

TEST_F(Twins, HowManyDevicesHoldAStageChangesNoByte) {
    const ModelCase model{"mobilenet_v2", "mobilenet_v2", 22};
    // Batch norm and dropout, clipped. No micro-batch of two: identity_test.cpp says why.
    const Flags flags{"--data",
                      "synthetic:3x32x32:10:67",
                      "--steps",
                      "4",
                      "--batch",
                      "24",
                      "--micro-batches",
                      "6",
                      "--optimizer",
                      "adam",
                      "--lr",
                      "0.001",
                      "--clip-norm",
                      "1"};
    const auto plan = [&](const std::string& schedule, const std::vector<Stage>& stages) {
        return plan_with_twins(model, schedule, 24, 6, stages);
    };
    std::vector<std::string> plans{
        plan("gpipe", {{0, {{"d0", {0, 2}}, {"d1", {1}, 1, true}, {"d2", {3}}}}}),
        with_segments(plan(
            "1f1b", {{0, {{"d0", {0, 1}, 3}, {"d1", {2, 3}, 3}}}, {9, {{"d2", {0, 1, 2, 3}}}}})),
        plan("zb-h1", {{0, {{"d0", {0, 1, 2}, 5}, {"d1", {3}, 2}}},
                       {9, {{"d2", {1, 3}, 2}, {"d3", {0, 2}, 2}}}})};
    if (std::getenv("ECOPIPE_FULL") != nullptr) {
        plans.push_back(plan("1f1b", {{0, {{"d0", {0, 1}}, {"d1", {2, 3}}}}}));
        plans.push_back(plan("1f1b", {{0, {{"d0", {3}}, {"d1", {0}}, {"d2", {1}}, {"d3", {2}}}}}));
        plans.push_back(plan("1f1b", {{0, {{"d0", {0, 1, 2, 3}, 6, true}}},
                                      {8, {{"d1", {0, 3}}, {"d2", {1}}, {"d3", {2}}}}}));
    }
    expect_identical(model, flags, plans);
}

TEST_F(Twins, SkipsAndTiedWeightsGoToWhoeverHasTheMicroBatch) {
    write_small_graph(directory_ / "graph");
    const ModelCase model{directory_ / "graph",
                          "sha256:" + sha256_hex(read(directory_ / "graph/graph.json")), 5};
    const Flags flags{"--data", "synthetic:3x8x8:10:103", "--steps", "6",           "--batch",
                      "50",     "--micro-batches",        "7",       "--clip-norm", "0.1"};
    const auto plan = [&](const std::string& schedule, const std::vector<Stage>& stages) {
        return plan_with_twins(model, schedule, 50, 7, stages);
    };
    // The tied weight's home is layer 1, its user layer 2; the last batch has fewer micro-batches
    // than there are blocks.
    expect_identical(model, flags,
                     {plan("1f1b", {{0, {{"d0", {0, 1}}, {"d1", {2, 3}}}}}),
                      plan("1f1b", {{0, {{"d0", {0, 1}, 4}, {"d1", {2, 3}, 4}}},
                                    {2, {{"d2", {0, 2}, 2}, {"d3", {1, 3}, 2}}}}),
                      plan("gpipe", {{0, {{"d0", {0, 1, 2, 3}, 7}}},
                                     {1, {{"d1", {0}, 2}, {"d2", {1, 2, 3}, 6}}},
                                     {2, {{"d3", {0, 1, 2, 3}, 7}}},
                                     {4, {{"d4", {2, 3}, 4}, {"d5", {0, 1}, 4}}}})});
}

TEST_F(Twins, OneThatIsKilledCostsTimeAlone) {
    const ModelCase model{"fashion_cnn", "fashion_cnn", 11};
    const Flags flags{"--data", "synthetic:1x28x28:10:256", "--steps", "30", "--batch",
                      "32",     "--micro-batches",          "8"};
    const std::string reference = single(model, flags + Flags{"--sum-blocks", "4"}, "single");
    std::string text = "name: home\nportal: d0\ndevices:\n";
    for (const char* device : {"d0", "d1", "d2"})
        text += std::string("  - {name: ") + device + ", memory_mib: 1024, speed: 0.5}\n";
    write(directory_ / "cluster.yaml", text + "default_link: {mbps: 1000, latency_ms: 0.1}\n");
    write(directory_ / "plan.json", plan_with_twins(model, "1f1b", 32, 8,
                                                    {{0, {{"d0", {0, 1}, 4}, {"d1", {2, 3}, 4}}},
                                                     {5, {{"d2", {0, 1, 2, 3}, 1}}}}));
    Process train(Flags{"ecopipe-train", "--local", "--cluster", directory_ / "cluster.yaml",
                        "--plan", directory_ / "plan.json", "--model", model.model,
                        "--no-evaluation", "--quiet", "--out", directory_ / "killed"} +
                  Flags{flags.begin(), flags.begin() + 4});
    kill_when_under_way(train, directory_ / "killed", "d1");
    const Finished finished = train.wait(120);
    ASSERT_EQ(finished.code, 0) << finished.err;
    EXPECT_NE(read(directory_ / "killed/metrics.jsonl").find("\"kind\":\"lost\""),
              std::string::npos);
    EXPECT_TRUE(read(directory_ / "killed/model.safetensors") == reference);
}

TEST_F(Twins, TheirNumberOfSumBlocksIsOfTheRunAndKept) {
    const Flags base{
        "ecopipe-train",  "--model", "lenet5",          "--data", "synthetic:1x28x28:10:64",
        "--batch",        "16",      "--micro-batches", "4",      "--quiet",
        "--no-evaluation"};
    const std::string out = directory_ / "run";
    ASSERT_EQ(run(base + Flags{"--single", "--sum-blocks", "4", "--steps", "3", "--out", out}).code,
              0);
    const Finished other = run(
        base + Flags{"--single", "--sum-blocks", "2", "--steps", "6", "--resume", "--out", out});
    EXPECT_EQ(other.code, 2);
    EXPECT_NE(other.err.find("--sum-blocks was 4"), std::string::npos) << other.err;
    ASSERT_EQ(
        run(base + Flags{"--single", "--sum-blocks", "4", "--steps", "6", "--resume", "--out", out})
            .code,
        0);
    for (const char* wrong : {"3", "many"})
        EXPECT_EQ(run(base + Flags{"--single", "--sum-blocks", wrong, "--steps", "1", "--out",
                                   directory_ / "never"})
                      .code,
                  2)
            << wrong;
    EXPECT_EQ(run(base + Flags{"--single", "--sum-blocks", "8", "--steps", "1", "--out",
                               directory_ / "never"})
                  .err,
              "ecopipe-train: --sum-blocks: expected at most the micro-batches (4), found 8\n");
}

TEST_F(Twins, TheStepsThatAPlannerChoseEqualThoseOfOneProcess) {
    std::string text = "name: home\nportal: d0\ndevices:\n";
    for (const char* device : {"d0", "d1"})
        text += std::string("  - {name: ") + device + ", memory_mib: 1024, speed: 0.5}\n";
    write(directory_ / "cluster.yaml", text + "default_link: {mbps: 10000, latency_ms: 0.01}\n");
    const Flags flags{"--data", "synthetic:1x28x28:10:256", "--steps", "20", "--batch",
                      "32",     "--micro-batches",          "8"};
    const ModelCase model{"fashion_cnn", "fashion_cnn", 11};
    expect_trains(Flags{"--local", "--cluster", directory_ / "cluster.yaml", "--model", model.model,
                        "--sum-blocks", "auto", "--out", directory_ / "auto"} +
                  flags);
    const Json plan = Json::parse(read(directory_ / "auto/plan.json"));
    const std::string blocks = std::to_string(plan.value("sum_blocks", 1));
    ASSERT_TRUE(plan["alternatives"].contains("pipeline_ms"));
    EXPECT_TRUE(plan["alternatives"].contains("data_parallel_ms"));
    EXPECT_TRUE(read(directory_ / "auto/model.safetensors") ==
                single(model, flags + Flags{"--sum-blocks", blocks}, "single"))
        << blocks;
}

}  // namespace
}  // namespace ecopipe::test
