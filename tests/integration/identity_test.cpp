// The promise: where a layer runs changes nothing but the time. Weights of --single and of every
// pipeline, byte for byte.
#include <algorithm>
#include <utility>

#include "tests/integration/training_fixture.h"

namespace ecopipe::test {
namespace {

class Identity : public Training {
  protected:
    // 20 steps over 5 batches of 50 in 7 uneven micro-batches and a short last batch of 9 (M > its
    // share), in one process and with 1 to 4 stages.
    void expect_identical(const ModelCase& model, const Flags& optimizer,
                          const std::vector<int>& stage_counts,
                          const std::vector<std::string>& schedules) {
        Flags flags{"--data",          "fashion-mnist",
                    "--data-limit",    "209",
                    "--steps",         "20",
                    "--seed",          "3",
                    "--batch",         "50",
                    "--micro-batches", "7"};
        flags.insert(flags.end(), optimizer.begin(), optimizer.end());
        const std::string reference = single(model, flags, "single");
        ASSERT_GT(reference.size(), 1000U);
        for (const auto& [stages, schedule] :
             pairs(stage_counts, schedules, optimizer.at(1) == "adam")) {
            const std::string name = schedule + std::to_string(stages);
            // No ASSERT on the bytes themselves: a diff of megabytes helps nobody.
            EXPECT_TRUE(local(model, hand_plan(model, stages, schedule, 50, 7), flags, name) ==
                        reference)
                << name;
        }
    }
    // The same for models of coloured images. Their last maps are of one pixel here: of two
    // samples' statistics, gradients grow to 10^8 and with some kernels beyond all numbers. Batches
    // of 18, 18 and 17 make micro-batches of four and five.
    void expect_identical_zoo(const ModelCase& model, const std::vector<std::string>& optimizers,
                              const std::vector<int>& stage_counts,
                              const std::vector<std::string>& schedules) {
        for (const std::string& tag : optimizers) {
            const Flags flags{"--data",
                              "synthetic:3x32x32:10:53",
                              "--steps",
                              full() ? "20" : "8",
                              "--batch",
                              "18",
                              "--micro-batches",
                              "4",
                              "--optimizer",
                              tag,
                              "--lr",
                              "0.001"};
            const std::string reference = single(model, flags, tag);
            for (const auto& [stages, schedule] : pairs(stage_counts, schedules, tag == "adam")) {
                const std::string name = tag + schedule + std::to_string(stages);
                EXPECT_TRUE(local(model, hand_plan(model, stages, schedule, 18, 4), flags, name) ==
                            reference)
                    << name;
            }
        }
    }
    // Of 1 to 4 stages under two schedules every second pair, and with Adam those that were left
    // out; with ECOPIPE_FULL=1 all.
    static std::vector<std::pair<int, std::string>> pairs(const std::vector<int>& stage_counts,
                                                          const std::vector<std::string>& schedules,
                                                          bool adam) {
        std::vector<std::pair<int, std::string>> all;
        std::vector<std::pair<int, std::string>> half;
        for (const int stages : stage_counts)
            for (const std::string& schedule : schedules) {
                const std::size_t index = all.size();
                all.emplace_back(stages, schedule);
                if (((index / 2 + index) % 2 == 1) == adam) half.push_back(all.back());
            }
        return full() || all.size() < 8 ? all : half;
    }
    const std::vector<int> counts_{1, 2, 3, 4};
    const Flags sgd_{"--optimizer", "sgd", "--momentum", "0.9", "--lr", "0.02"};
    const Flags adam_{"--optimizer", "adam", "--lr", "0.002"};
    const std::vector<std::string> both_{"gpipe", "1f1b"};
};

TEST_F(Identity, FashionCnnSgd) {
    expect_identical({"fashion_cnn", "fashion_cnn", 11}, sgd_, counts_, both_);
}
TEST_F(Identity, FashionCnnAdam) {
    expect_identical({"fashion_cnn", "fashion_cnn", 11}, adam_, counts_, both_);
}
TEST_F(Identity, SplitBackward) {
    expect_identical({"fashion_cnn", "fashion_cnn", 11}, sgd_, {1, 2, 3}, {"zb-h1"});
}
TEST_F(Identity, SplitBackwardOfTorchScript) {
    expect_identical(torchscript("norm_dropout", 14), adam_, {3}, {"zb-h1"});
}

// A user's own order: two forwards ahead, input gradients at once, weight gradients at the end.
TEST_F(Identity, OwnScheduleWithWeightGradientsLast) {
    const ModelCase model{"lenet5", "lenet5", 12};
    write(directory_ / "own.csv",
          "F0,F1,I0,F2,I1,F3,I2,I3,W0,W1,W2,W3\nF0,I0,F1,I1,F2,I2,F3,I3,W0,W1,W2,W3\n");
    write(directory_ / "cluster.yaml",
          "name: home\nportal: d0\nportal_address: 127.0.0.1\ndevices:\n"
          "  - {name: d0, memory_mib: 1024, speed: 0.8}\n  - {name: d1, memory_mib: 1024, speed: "
          "0.8}\n"
          "default_link: {mbps: 1000, latency_ms: 0.1}\n");
    const Flags flags{"--data",          "fashion-mnist",
                      "--data-limit",    "150",
                      "--steps",         "8",
                      "--batch",         "32",
                      "--micro-batches", "4"};
    Flags all{"--local",         "--cluster",  directory_ / "cluster.yaml", "--model",
              "lenet5",          "--schedule", directory_ / "own.csv",      "--out",
              directory_ / "own"};
    all.insert(all.end(), flags.begin(), flags.end());
    expect_trains(all);
    EXPECT_TRUE(read(directory_ / "own/model.safetensors") == single(model, flags, "single"));
}

// Compression ends equality with one process, but not repeatability.
TEST_F(Identity, CompressedRunsRepeatTheirBytes) {
    const ModelCase model{"fashion_cnn", "fashion_cnn", 11};
    const Flags flags{"--data",          "fashion-mnist",
                      "--data-limit",    "209",
                      "--steps",         "10",
                      "--batch",         "50",
                      "--micro-batches", "7"};
    std::string plan = hand_plan(model, 3, "1f1b", 50, 7);
    for (std::size_t at = 0; (at = plan.find("\"recompute\"", at)) != std::string::npos; at += 80)
        plan.insert(at, R"("codec_forward":"fp16","codec_backward":"int8",)");
    const std::string once = local(model, plan, flags, "once");
    EXPECT_TRUE(once == local(model, plan, flags, "again"));
    EXPECT_FALSE(once == single(model, flags, "single"));
}

TEST_F(Identity, TorchScriptSgd) {
    expect_identical(torchscript("norm_dropout", 14), sgd_, counts_, both_);
}
TEST_F(Identity, TorchScriptAdam) {
    expect_identical(torchscript("norm_dropout", 14), adam_, counts_, both_);
}
// Batch norm, dropout, and under interleaved two slices a device.
TEST_F(Identity, StagesOfWhichPartIsRecomputed) {
    const ModelCase model = torchscript("norm_dropout", 14);
    const Flags flags{"--data",          "fashion-mnist",
                      "--data-limit",    "150",
                      "--steps",         "8",
                      "--batch",         "32",
                      "--micro-batches", "4"};
    const std::string reference = single(model, flags, "single");
    for (const auto& [stages, schedule] : {std::pair(1, "1f1b"), {2, "1f1b"}, {3, "gpipe"}})
        EXPECT_TRUE(local(model, with_segments(hand_plan(model, stages, schedule, 32, 4)), flags,
                          std::string(schedule) + std::to_string(stages)) == reference)
            << schedule << stages;
    std::string slices = with_segments(hand_plan(model, 4, "interleaved", 32, 4));
    for (const auto& [from, to] : {std::pair("\"d2\"", "\"d0\""), {"\"d3\"", "\"d1\""}})
        slices.replace(slices.find(from), 4, to);
    EXPECT_TRUE(local(model, slices, flags, "interleaved") == reference);
}

TEST_F(Identity, StridedLayers) {
    expect_identical(torchscript("strided", 12), sgd_, {2, 4}, both_);
}
TEST_F(Identity, Activations) {
    expect_identical(torchscript("activations", 8), adam_, {3}, {"1f1b"});
}

// Batch norm refuses the short batch that leaves one value per channel, so these batches divide
// otherwise.
TEST_F(Identity, MobileNetSgdAndAdam) {
    expect_identical_zoo({"mobilenet_v2", "mobilenet_v2", 22}, {"sgd", "adam"}, counts_, both_);
}
TEST_F(Identity, EfficientNet) {
    expect_identical_zoo({"efficientnet_b0", "efficientnet_b0", 21}, {"sgd"}, {3}, {"1f1b"});
}
TEST_F(Identity, ShuffleNetV2) {
    expect_identical_zoo({"shufflenet_v2_x1_0", "shufflenet_v2_x1_0", 21}, {"sgd"}, {4}, {"gpipe"});
}
TEST_F(Identity, ShuffleNetV1) {
    expect_identical_zoo({"shufflenet_v1_g3", "shufflenet_v1_g3", 20}, {"sgd"}, {3}, {"1f1b"});
}

TEST_F(Identity, MobileBert) {
    const ModelCase model{"mobilebert", "mobilebert", 26};
    const Finished made =
        run({kPython, std::string(ECOPIPE_SOURCE_DIR) + "/tests/integration/reference/tensors.py",
             directory_.path()});
    ASSERT_EQ(made.code, 0) << made.err;
    const Flags flags{"--data",
                      "tensors:" + (directory_ / "text"),
                      "--steps",
                      "3",
                      "--batch",
                      "30",
                      "--micro-batches",
                      "4",
                      "--lr",
                      "0.1"};
    EXPECT_TRUE(local(model, hand_plan(model, 3, "1f1b", 30, 4, true), flags, "stages") ==
                single(model, flags, "single"));
}

TEST_F(Identity, RecomputationChangesNothing) {
    const ModelCase model = torchscript("norm_dropout", 14);
    const Flags flags{"--data",          "fashion-mnist",
                      "--data-limit",    "209",
                      "--steps",         "10",
                      "--batch",         "50",
                      "--micro-batches", "7"};
    EXPECT_TRUE(local(model, hand_plan(model, 3, "1f1b", 50, 7, true), flags, "recomputing") ==
                single(model, flags, "single"));
}

TEST_F(Identity, FewerMicroBatchesThanStages) {
    const ModelCase model{"lenet5", "lenet5", 12};
    const Flags flags{"--data",          "fashion-mnist",
                      "--data-limit",    "60",
                      "--steps",         "6",
                      "--batch",         "20",
                      "--micro-batches", "2"};
    EXPECT_TRUE(local(model, hand_plan(model, 4, "1f1b", 20, 2), flags, "short") ==
                single(model, flags, "single"));
}

TEST_F(Identity, SlicesOfOneDeviceInTurn) {
    const ModelCase model{"lenet5", "lenet5", 12};
    write(directory_ / "cluster.yaml",
          "name: home\nportal: d0\nportal_address: 127.0.0.1\ndevices:\n"
          "  - {name: d0, memory_mib: 512, speed: 1}\n  - {name: d1, memory_mib: 512, speed: 1}\n"
          "default_link: {mbps: 1000, latency_ms: 0.1}\n");
    const Flags flags{"--data",          "fashion-mnist",
                      "--data-limit",    "200",
                      "--steps",         "8",
                      "--batch",         "32",
                      "--micro-batches", "4"};
    Flags all{"--local",     "--cluster", directory_ / "cluster.yaml",
              "--model",     "lenet5",    "--schedule",
              "interleaved", "--out",     directory_ / "sliced"};
    all.insert(all.end(), flags.begin(), flags.end());
    expect_trains(all);
    EXPECT_NE(read(directory_ / "sliced/plan.json").find("interleaved"), std::string::npos);
    EXPECT_TRUE(read(directory_ / "sliced/model.safetensors") == single(model, flags, "single"));
}

// The first and the last layers lie on the portal's device; with tests between the steps, whose
// batches go the same way.
TEST_F(Identity, ThereAndBackThroughTheDevices) {
    const ModelCase model{"lenet5", "lenet5", 12};
    write(directory_ / "cluster.yaml",
          "name: home\nportal: d1\nportal_address: 127.0.0.1\ndevices:\n"
          "  - {name: d0, memory_mib: 512, speed: 1}\n  - {name: d1, memory_mib: 512, speed: 1}\n"
          "  - {name: d2, memory_mib: 512, speed: 0.7}\n"
          "default_link: {mbps: 10000, latency_ms: 0.1}\n");
    const Flags flags{"--data",          "fashion-mnist",
                      "--data-limit",    "200",
                      "--epochs",        "1",
                      "--batch",         "32",
                      "--micro-batches", "8"};
    const std::string reference = single(model, flags, "single");
    for (const char* schedule : {"v-half", "v-min"}) {
        expect_trains(Flags{"--local", "--cluster", directory_ / "cluster.yaml", "--model",
                            "lenet5", "--schedule", schedule, "--out", directory_ / schedule} +
                      flags);
        const auto plan =
            nlohmann::json::parse(read(directory_ / (std::string(schedule) + "/plan.json")));
        EXPECT_EQ(plan["schedule"], schedule);
        EXPECT_EQ(plan["stages"].front()["device"], "d1");
        EXPECT_EQ(plan["stages"].back()["device"], "d1");
        EXPECT_TRUE(read(directory_ / (std::string(schedule) + "/model.safetensors")) == reference)
            << schedule;
    }
    // Stages that lie anyhow, neighbours on one device among them.
    nlohmann::ordered_json plan =
        nlohmann::ordered_json::parse(hand_plan(model, {0, 2, 5, 9}, "own", 32, 2));
    const std::vector<const char*> devices{"d0", "d0", "d1", "d0"};
    for (std::size_t s = 0; s < devices.size(); ++s) plan["stages"][s]["device"] = devices[s];
    plan["stages"][0]["actions"] = "F0,F0.1,F1,F1.1,F0.2,B0.2,F1.2,B0.1,B0,B1.2,B1.1,B1";
    plan["stages"][2]["actions"] = "F0,F1,B0,B1";
    write(directory_ / "plan.json", plan.dump());
    const Flags two{"--data",          "fashion-mnist",
                    "--data-limit",    "200",
                    "--epochs",        "1",
                    "--batch",         "32",
                    "--micro-batches", "2"};
    expect_trains(Flags{"--local", "--plan", directory_ / "plan.json", "--model", "lenet5", "--out",
                        directory_ / "anyhow", "--data", "fashion-mnist", "--data-limit", "200",
                        "--epochs", "1"});
    EXPECT_TRUE(read(directory_ / "anyhow/model.safetensors") == single(model, two, "single-two"));
}

TEST_F(Identity, UnequalEmulatedDevicesAndLinksChangeOnlyTheTime) {
    const ModelCase model{"lenet5", "lenet5", 12};
    write(
        directory_ / "cluster.yaml",
        "name: home\nportal: hub\ndevices:\n  - {name: hub, memory_mib: 512, speed: 0.5}\n"
        "  - {name: pi, memory_mib: 512, speed: 0.25}\ndefault_link: {mbps: 200, latency_ms: 2}\n");
    const Flags flags{"--data",          "fashion-mnist",
                      "--data-limit",    "300",
                      "--steps",         "8",
                      "--batch",         "32",
                      "--micro-batches", "4",
                      "--seed",          "9"};
    const std::string reference = single(model, flags, "single");
    Flags all{"--local", "--cluster", directory_ / "cluster.yaml", "--model",
              "lenet5",  "--out",     directory_ / "planned"};
    all.insert(all.end(), flags.begin(), flags.end());
    expect_trains(all);
    EXPECT_TRUE(read(directory_ / "planned/model.safetensors") == reference);
    EXPECT_NE(read(directory_ / "planned/plan.json").find("\"predicted\""), std::string::npos);
}

// What a stage tells of its actions does not fit one message.
TEST_F(Identity, AStepOfTwentyThousandMicroBatches) {
    const ModelCase model = torchscript("narrow", 4);
    const Flags flags{"--data", "synthetic:1x1x8:2:20000", "--steps", "1", "--seed", "3", "--batch",
                      "20000",  "--micro-batches",         "20000"};
    EXPECT_TRUE(local(model, hand_plan(model, 2, "1f1b", 20000, 20000), flags, "many") ==
                single(model, flags, "single"));
    const std::string timeline = read(directory_ / "many/timeline.json");
    std::size_t actions = 0;
    for (std::size_t at = 0; (at = timeline.find("\"ph\":\"X\"", at)) != std::string::npos; ++at)
        ++actions;
    EXPECT_EQ(actions, 80000U);
}

// One tensor takes longer to arrive (24 s) than a stage waits without anything that comes.
TEST_F(Identity, OverALinkThatTakesLongForOneTensor) {
    const ModelCase model = torchscript("wide", 6);
    write(directory_ / "cluster.yaml",
          "name: home\nportal: d0\nportal_address: 127.0.0.1\ndevices:\n"
          "  - {name: d0, memory_mib: 1024, speed: 0.7}\n"
          "  - {name: d1, memory_mib: 1024, speed: 0.7}\n"
          "default_link: {mbps: 0.7, latency_ms: 0.1}\n");
    const Flags flags{"--data",          "synthetic:1x1x16:2:16",
                      "--steps",         "1",
                      "--seed",          "3",
                      "--micro-batches", "2",
                      "--batch",         "4",
                      "--replicas",      "off"};
    EXPECT_TRUE(local(
                    model, hand_plan(model, 2, "gpipe", 4, 2),
                    [&] {
                        Flags slow = flags;
                        for (const std::string& flag :
                             {std::string("--cluster"), directory_ / "cluster.yaml"})
                            slow.push_back(flag);
                        return slow;
                    }(),
                    "slow") == single(model, flags, "single"));
}

// The planner chooses M once; one process with that M gives the same bytes, and so does resuming.
TEST_F(Identity, AutomaticMicroBatchesAreRecordedAndKept) {
    const ModelCase model{"lenet5", "lenet5", 12};
    write(directory_ / "cluster.yaml",
          "name: home\nportal: d0\nportal_address: 127.0.0.1\ndevices:\n"
          "  - {name: d0, memory_mib: 1024, speed: 0.7}\n  - {name: d1, memory_mib: 1024, speed: "
          "0.7}\n"
          "default_link: {mbps: 1000, latency_ms: 0.1}\n");
    Flags flags{"--data", "fashion-mnist", "--data-limit", "320", "--batch", "32"};
    Flags automatic{
        "--local", "--cluster", directory_ / "cluster.yaml", "--model", "lenet5", "--micro-batches",
        "auto",    "--out",     directory_ / "auto",         "--steps", "6"};
    automatic.insert(automatic.end(), flags.begin(), flags.end());
    expect_trains(automatic);
    const std::string plan = read(directory_ / "auto/plan.json");
    const std::size_t at = plan.find("\"micro_batches\": ") + 17;
    const std::string chosen = plan.substr(at, plan.find_first_of(",\n", at) - at);
    ASSERT_FALSE(chosen.empty());
    std::replace(automatic.begin(), automatic.end(), std::string("6"), std::string("9"));
    automatic.emplace_back("--resume");
    expect_trains(automatic);
    for (const char* more : {"--steps", "9", "--micro-batches"}) flags.emplace_back(more);
    flags.push_back(chosen);
    EXPECT_TRUE(read(directory_ / "auto/model.safetensors") == single(model, flags, "single"));
}

}  // namespace
}  // namespace ecopipe::test
