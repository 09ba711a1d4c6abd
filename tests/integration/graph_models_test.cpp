// Models that are graphs, through the programs: the same bytes in one process and on any partition,
// also when a device dies while skips are under way.
#include <filesystem>
#include <map>
#include <sstream>
#include <tuple>

#include "core/files.h"
#include "core/strict_json.h"
#include "tests/integration/training_fixture.h"
#include "tests/support/small_graph_files.h"

namespace ecopipe::test {
namespace {

class GraphModels : public Training {
  protected:
    GraphModels() { write_small_graph(directory_ / "graph"); }
    [[nodiscard]] ModelCase graph() const {
        return {directory_ / "graph", "sha256:" + sha256_hex(read(directory_ / "graph/graph.json")),
                5};
    }
    static Flags flags(const std::string& steps) {
        return {"--data", "synthetic:3x8x8:10:210", "--steps", steps, "--seed", "3", "--batch",
                "50",     "--micro-batches",        "7"};
    }
    // Of each step, by device.
    [[nodiscard]] std::vector<std::map<std::string, std::uint64_t>> sent_bytes(
        const std::string& run) const {
        std::vector<std::map<std::string, std::uint64_t>> steps;
        std::istringstream lines(read(directory_ / (run + "/metrics.jsonl")));
        for (std::string line; std::getline(lines, line);) {
            const Json json = Json::parse(line);
            if (!json.contains("stages")) continue;
            steps.emplace_back();
            for (const Json& stage : json["stages"])
                steps.back()[stage["device"]] = stage["sent_bytes"];
        }
        return steps;
    }
};

TEST_F(GraphModels, TheSameBytesOnOneToFiveStages) {
    // The norm is of all stages' gradients, a tied one's once.
    Flags clipped = flags("15");
    clipped.insert(clipped.end(), {"--clip-norm", "0.1", "--optimizer", "adamw"});
    const std::string reference = single(graph(), clipped, "single");
    ASSERT_GT(reference.size(), 1000U);
    for (const auto& [stages, schedule, recompute] : {std::tuple(2, "1f1b", false),
                                                      {3, "gpipe", false},
                                                      {4, "zb-h1", false},
                                                      {5, "1f1b", true}}) {
        const std::string name = schedule + std::to_string(stages);
        EXPECT_TRUE(local(graph(), hand_plan(graph(), stages, schedule, 50, 7, recompute), clipped,
                          name) == reference)
            << name;
    }
    const std::string plan = hand_plan(graph(), {0, 3}, "gpipe", 50, 7);
    EXPECT_TRUE(local(graph(), with_segments(plan), clipped, "segments") == reference);
}

TEST_F(GraphModels, AValueGoesOnceToADeviceThatHasTwoOfItsUsers) {
    const std::string reference = single(graph(), flags("8"), "single");
    // Layers 1 and 3 use what layer 0 makes, both on d1.
    std::string stages;
    for (int layer = 0; layer < 4; ++layer)
        stages += std::string(layer > 0 ? "," : "") + R"({"device":"d)" +
                  std::to_string(layer % 2) + R"(","first_layer":)" + std::to_string(layer) +
                  R"(,"last_layer":)" + std::to_string(layer == 3 ? 4 : layer) +
                  R"(,"in_flight":7,"recompute":false})";
    const std::string plan =
        R"({"schema":"ecopipe.plan/1","model":")" + graph().id +
        R"(","batch":50,"micro_batches":7,"schedule":"interleaved","stages":[)" + stages + "]}";
    EXPECT_TRUE(local(graph(), plan, flags("8"), "interleaved") == reference);
}

TEST_F(GraphModels, ASkipOverAStageCostsThatStageNothing) {
    // a b | c | d e: what `a` and `b` make is used by c and by d.
    const std::string plan = hand_plan(graph(), {0, 2, 3}, "1f1b", 50, 7);
    EXPECT_TRUE(local(graph(), plan, flags("3"), "skips") == single(graph(), flags("3"), "single"));
    const std::uint64_t map = 50 * 4 * 8 * 8 * 4;  // bytes of four channels of a batch
    const std::uint64_t tied = 4 * 4 * 3 * 3 * 4;  // c has the weights of b
    const auto sent = sent_bytes("skips");
    ASSERT_EQ(sent.size(), 3U);
    for (const auto& step : sent) {
        EXPECT_EQ(step.at("d0"), 4 * map) << "two values, to two devices each";
        EXPECT_EQ(step.at("d1"), 3 * map + tied) << "c, its own gradients of a and b, and no more";
        EXPECT_EQ(step.at("d2"), 3 * map) << "gradients of a and b, straight back, and of c";
    }
}

TEST_F(GraphModels, CompressedRunsRepeatTheirBytes) {
    std::string plan = hand_plan(graph(), {0, 2, 3}, "1f1b", 50, 7);
    for (std::size_t at = 0; (at = plan.find("\"recompute\"", at)) != std::string::npos; at += 80)
        plan.insert(at, R"("codec_forward":"fp16","codec_backward":"int8",)");
    const std::string once = local(graph(), plan, flags("5"), "once");
    EXPECT_TRUE(once == local(graph(), plan, flags("5"), "again"));
    EXPECT_FALSE(once == single(graph(), flags("5"), "single"));
    EXPECT_EQ(sent_bytes("once").front().at("d0"), 2 * 50 * 4 * 8 * 8 * 4);
}

TEST_F(GraphModels, ADeviceKilledWhileSkipsAreUnderWayCostsTimeAlone) {
    const std::string reference = single(graph(), flags("60"), "single");
    std::string text = "name: home\nportal: d0\nportal_address: 127.0.0.1\ndevices:\n";
    for (const char* device : {"d0", "d1", "d2"})
        text += std::string("  - {name: ") + device + ", memory_mib: 1024, speed: 0.5}\n";
    write(directory_ / "cluster.yaml", text + "default_link: {mbps: 1000, latency_ms: 0.1}\n");
    write(directory_ / "plan.json", hand_plan(graph(), 3, "1f1b", 50, 7));
    Flags all{"ecopipe-train",   "--local",
              "--cluster",       directory_ / "cluster.yaml",
              "--plan",          directory_ / "plan.json",
              "--model",         graph().model,
              "--no-evaluation", "--quiet",
              "--out",           directory_ / "killed",
              "--data",          "synthetic:3x8x8:10:210",
              "--steps",         "60",
              "--seed",          "3"};
    Process train(all);
    kill_when_under_way(train, directory_ / "killed", "d1");
    const Finished finished = train.wait(120);
    ASSERT_EQ(finished.code, 0) << finished.err;
    EXPECT_NE(read(directory_ / "killed/metrics.jsonl").find("\"kind\":\"lost\""),
              std::string::npos);
    EXPECT_TRUE(read(directory_ / "killed/model.safetensors") == reference);
}

TEST_F(GraphModels, DataThatDoNotFitAreOneLineThatSaysWhatIsWanted) {
    const auto refused = [&](const std::string& data) {
        return run({"ecopipe-train", "--single", "--quiet", "--model", graph().model, "--data",
                    data, "--steps", "1", "--out", directory_ / "never"})
            .err;
    };
    EXPECT_NE(refused("synthetic:3x9x8:10:20")
                  .find("--data: the model takes F32 [3, 8, 8] a sample as x, the data have F32 "
                        "[3, 9, 8]"),
              std::string::npos);
    std::filesystem::create_directories(directory_ / "empty");
    const Finished no_graph = run({"ecopipe-train", "--single", "--model", directory_ / "empty",
                                   "--data", "synthetic:3x8x8:10:20", "--out", directory_ / "n"});
    EXPECT_EQ(no_graph.code, 2);
    EXPECT_NE(no_graph.err.find("expected a directory with a graph.json"), std::string::npos);
}

}  // namespace
}  // namespace ecopipe::test
