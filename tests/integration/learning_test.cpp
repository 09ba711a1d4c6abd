// Schedules, clipping, AdamW, losses, augmentation and early stopping: as PyTorch's, and the same
// bytes on any partition, over failures and resumptions.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <set>
#include <sstream>
#include <thread>

#include "core/strict_json.h"
#include "tests/integration/training_fixture.h"

namespace ecopipe::test {
namespace {

class Learning : public Training {
  protected:
    const ModelCase model_{"fashion_cnn", "fashion_cnn", 11};
    // Everything at once; the learning rate is so high that validation soon stops improving.
    const Flags all_{"--data",
                     "synthetic:1x28x28:10:180",
                     "--seed",
                     "4",
                     "--optimizer",
                     "adamw",
                     "--lr",
                     "0.02",
                     "--weight-decay",
                     "0.01",
                     "--lr-schedule",
                     "cosine",
                     "--warmup-steps",
                     "3",
                     "--clip-norm",
                     "0.5",
                     "--augment",
                     "flip,crop",
                     "--normalize",
                     "0.2860/0.3530",
                     "--validation-fraction",
                     "0.2",
                     "--early-stop",
                     "2"};
    const Flags size_{"--batch", "32", "--micro-batches", "5"};

    // Trains into `name` and expects success.
    void train(const std::string& name, const Flags& flags) {
        const Finished finished = run(
            Flags{"ecopipe-train", "--quiet", "--log-level", "warn", "--out", directory_ / name} +
                flags,
            240);
        ASSERT_EQ(finished.code, 0) << name << ": " << finished.err;
    }
    Flags in_one_process(const ModelCase& model) const {
        return Flags{"--single", "--model", model.model} + size_;
    }
    Flags in_stages(const ModelCase& model, int stages) {
        const std::string path = directory_ / (std::to_string(stages) + ".plan.json");
        write(path, hand_plan(model, stages, "1f1b", 32, 5));
        return {"--local", "--plan", path, "--model", model.model};
    }
    [[nodiscard]] std::string file(const std::string& run_name, const std::string& name) const {
        return read(directory_ / (run_name + "/" + name));
    }
    // The lines of evaluations: they hold no times.
    [[nodiscard]] std::string evaluations(const std::string& name) const {
        std::istringstream lines(file(name, "metrics.jsonl"));
        std::string out;
        for (std::string line; std::getline(lines, line);)
            if (line.find("\"split\"") != std::string::npos) out += line + "\n";
        return out;
    }
    void expect_equal(const std::string& name, const std::string& reference) const {
        EXPECT_TRUE(file(name, "model.safetensors") == file(reference, "model.safetensors"))
            << name;
        EXPECT_TRUE(file(name, "best.safetensors") == file(reference, "best.safetensors")) << name;
        EXPECT_EQ(evaluations(name), evaluations(reference)) << name;
    }
};

TEST_F(Learning, EverythingAtOnceIsByteIdenticalFor1To4Stages) {
    const Flags flags = all_ + Flags{"--epochs", "12"};
    train("single", in_one_process(model_) + flags);
    ASSERT_NE(file("single", "run.json").find("\"stopped_early\": true"), std::string::npos)
        << evaluations("single");
    EXPECT_FALSE(file("single", "model.safetensors") == file("single", "best.safetensors"));
    // The test split is looked at once, after the last step.
    const std::string lines = evaluations("single");
    EXPECT_EQ(lines.find("\"split\":\"test\""), lines.rfind("\"split\":\"test\""));
    for (const int stages : {1, 2, 3, 4}) {
        const std::string name = "stages" + std::to_string(stages);
        train(name, in_stages(model_, stages) + flags);
        expect_equal(name, "single");
    }
}

// What an optimiser keeps moves and is saved with its layers, whatever its type and shape.
TEST_F(Learning, FrugalOptimisersAreByteIdenticalInStagesAndOverAResumption) {
    const std::vector<Flags> optimizers{
        {"--optimizer", "adafactor", "--weight-decay", "0.01"},
        {"--optimizer", "adamw", "--lr", "0.002", "--moments", "bfloat16"},
        {"--moments", "bfloat16"}};
    std::set<std::string> results;
    for (const Flags& optimizer : optimizers) {
        const Flags common =
            Flags{"--data", "synthetic:1x28x28:10:96", "--no-evaluation"} + optimizer;
        const std::string name = std::to_string(results.size());
        train(name + ".single", in_one_process(model_) + common + Flags{"--steps", "4"});
        train(name + ".stages", in_stages(model_, 2) + common + Flags{"--steps", "2"});
        train(name + ".stages", in_stages(model_, 3) + common + Flags{"--steps", "4", "--resume"});
        const std::string expected = file(name + ".single", "model.safetensors");
        EXPECT_TRUE(file(name + ".stages", "model.safetensors") == expected) << name;
        EXPECT_TRUE(results.insert(expected).second) << "as another optimiser";
    }
}

TEST_F(Learning, ARunThatIsResumedStopsAtTheSameEpochWithTheSameBytes) {
    Flags flags = all_ + in_stages(model_, 2);
    // Cosine decays over the whole run, whose length a resumption may change only without it.
    std::replace(flags.begin(), flags.end(), std::string("cosine"), std::string("step"));
    flags = flags + Flags{"--lr-step-size", "10", "--lr-gamma", "1.5"};
    train("straight", flags + Flags{"--epochs", "12"});
    ASSERT_NE(file("straight", "run.json").find("\"stopped_early\": true"), std::string::npos)
        << evaluations("straight");
    train("resumed", flags + Flags{"--epochs", "1"});
    train("resumed", flags + Flags{"--epochs", "2", "--resume"});
    train("resumed", flags + Flags{"--epochs", "12", "--resume"});
    EXPECT_TRUE(file("resumed", "model.safetensors") == file("straight", "model.safetensors"));
    EXPECT_TRUE(file("resumed", "best.safetensors") == file("straight", "best.safetensors"));
    // Resumed once more it has nothing left to do, and its results stand.
    const std::string before = file("resumed", "model.safetensors");
    const std::string record = file("resumed", "run.json");
    train("resumed", flags + Flags{"--epochs", "12", "--resume"});
    EXPECT_TRUE(file("resumed", "model.safetensors") == before);
    EXPECT_EQ(file("resumed", "run.json"), record);
    // Killed between its last checkpoint and its end, it is ended by the resumption.
    OrderedJson without = OrderedJson::parse(record);
    const OrderedJson results = without["results"];
    without.erase("results");
    write(directory_ / "resumed/run.json", without.dump());
    std::remove((directory_ / "resumed/model.safetensors").c_str());
    train("resumed", flags + Flags{"--epochs", "12", "--resume"});
    EXPECT_TRUE(file("resumed", "model.safetensors") == before);
    const OrderedJson again = OrderedJson::parse(file("resumed", "run.json"))["results"];
    for (const char* name : {"steps", "test_loss", "test_accuracy", "stopped_early", "best_step"})
        EXPECT_EQ(again.value(name, OrderedJson()), results.value(name, OrderedJson())) << name;
    const Finished less = run(Flags{"ecopipe-train", "--quiet", "--resume", "--out",
                                    directory_ / "resumed", "--epochs", "1"} +
                              flags);
    EXPECT_EQ(less.code, 2);
    EXPECT_NE(less.err.find("the flags ask for"), std::string::npos) << less.err;
}

TEST_F(Learning, AStageKilledMeanwhileChangesNothing) {
    write(directory_ / "cluster.yaml",
          "name: home\nportal: d0\nportal_address: 127.0.0.1\ndevices:\n"
          "  - {name: d0, memory_mib: 1024, speed: 0.5}\n"
          "  - {name: d1, memory_mib: 1024, speed: 0.5}\n"
          "  - {name: d2, memory_mib: 1024, speed: 0.5}\n"
          "default_link: {mbps: 1000, latency_ms: 0.1}\n");
    const Flags flags = all_ + Flags{"--epochs", "12"};
    train("single", in_one_process(model_) + flags);
    Process survivor(Flags{"ecopipe-train", "--quiet", "--local", "--cluster",
                           directory_ / "cluster.yaml", "--model", "fashion_cnn", "--out",
                           directory_ / "killed"} +
                     size_ + flags);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (file("killed", "metrics.jsonl").find("\"step\":8,") == std::string::npos) {
        ASSERT_LT(std::chrono::steady_clock::now(), deadline) << survivor.err();
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    bool killed = false;
    for (const pid_t child : children_of(survivor.pid())) {
        std::string line = read("/proc/" + std::to_string(child) + "/cmdline");
        std::replace(line.begin(), line.end(), '\0', ' ');
        if (line.find("--name d1 ") != std::string::npos) killed = ::kill(child, SIGKILL) == 0;
    }
    ASSERT_TRUE(killed);
    const Finished finished = survivor.wait(120);
    ASSERT_EQ(finished.code, 0) << finished.err;
    EXPECT_NE(file("killed", "metrics.jsonl").find("\"kind\":\"lost\""), std::string::npos);
    expect_equal("killed", "single");
}

TEST_F(Learning, AResumptionWithOtherFlagsIsRefusedByName) {
    const Flags flags = in_one_process({"lenet5", "lenet5", 12}) +
                        Flags{"--data", "synthetic:1x16x16:3:64", "--steps", "2"};
    const auto refusal = [&](const std::string& name, const Flags& more) {
        return run(Flags{"ecopipe-train", "--quiet", "--resume", "--out", directory_ / name} +
                   flags + more);
    };
    train("plain", flags);
    const std::vector<Flags> changed{{"--clip-norm", "1"},       {"--warmup-steps", "5"},
                                     {"--augment", "flip"},      {"--normalize", "0.5/0.5"},
                                     {"--freeze", "0.*"},        {"--validation-fraction", "0.5"},
                                     {"--lr-schedule", "cosine"}};
    for (const Flags& change : changed) {
        const Finished refused = refusal("plain", change);
        EXPECT_EQ(refused.code, 2) << refused.err;
        EXPECT_NE(refused.err.find("--resume: " + change[0] + " was "), std::string::npos)
            << refused.err;
    }
    train("cosine", flags + Flags{"--lr-schedule", "cosine"});
    Flags longer{"ecopipe-train",
                 "--quiet",
                 "--resume",
                 "--out",
                 directory_ / "cosine",
                 "--single",
                 "--model",
                 "lenet5",
                 "--data",
                 "synthetic:1x16x16:3:64",
                 "--steps",
                 "4",
                 "--batch",
                 "32",
                 "--micro-batches",
                 "5",
                 "--lr-schedule",
                 "cosine"};
    const Finished refused = run(longer);
    EXPECT_EQ(refused.code, 2);
    EXPECT_NE(refused.err.find("--resume: --steps was 2"), std::string::npos) << refused.err;
}

class OwnTensors : public Learning {
  protected:
    void SetUp() override {
        const Finished made = run(
            {kPython, std::string(ECOPIPE_SOURCE_DIR) + "/tests/integration/reference/tensors.py",
             directory_.path()});
        ASSERT_EQ(made.code, 0) << made.err;
    }
    Flags data(const std::string& name) const {
        return {"--data", "tensors:" + (directory_ / name)};
    }
    void expect_two_stages_equal(const ModelCase& model, const Flags& flags,
                                 const std::string& metric) {
        train("single", in_one_process(model) + flags);
        EXPECT_NE(evaluations("single").find(metric), std::string::npos) << evaluations("single");
        train("two", in_stages(model, 2) + flags);
        EXPECT_TRUE(file("two", "model.safetensors") == file("single", "model.safetensors"));
        EXPECT_EQ(evaluations("two"), evaluations("single"));
        EXPECT_FALSE(file("two", "model.safetensors").empty());
    }
    void expect_as_pytorch(const std::string& model, int layers, const std::string& data_name,
                           const std::string& loss, const std::string& optimizer,
                           const std::string& schedule, const Flags& more,
                           const Flags& frozen = {}) {
        const ModelCase own = torchscript(model, layers);
        train(model, Flags{"--single",
                           "--model",
                           own.model,
                           "--no-shuffle",
                           "--batch",
                           "16",
                           "--micro-batches",
                           "3",
                           "--steps",
                           "14",
                           "--drop-last",
                           "--lr",
                           "0.02",
                           "--weight-decay",
                           "0.05",
                           "--clip-norm",
                           "0.1",
                           "--lr-schedule",
                           schedule,
                           "--loss",
                           loss,
                           "--no-evaluation",
                           "--optimizer",
                           optimizer} +
                         data(data_name) + more);
        const Finished compared =
            run(Flags{kPython,
                      std::string(ECOPIPE_SOURCE_DIR) +
                          "/tests/integration/reference/learning_reference.py",
                      own.model, directory_ / (data_name + "/train.safetensors"),
                      directory_ / (model + "/metrics.jsonl"), loss, optimizer, schedule, "14"} +
                frozen);
        EXPECT_EQ(compared.code, 0) << compared.out << compared.err;
    }
};

TEST_F(OwnTensors, TextThroughAnEmbeddingAndAGru) {
    expect_two_stages_equal(torchscript("token_gru", 4),
                            data("text") + Flags{"--epochs", "3", "--lr", "0.1"}, "\"accuracy\"");
}
TEST_F(OwnTensors, TagsThroughAttention) {
    expect_two_stages_equal(torchscript("token_tagger", 5),
                            data("tags") + Flags{"--epochs", "3", "--optimizer", "adam"},
                            "\"accuracy\"");
}
TEST_F(OwnTensors, RegressionReportsTheMeanAbsoluteError) {
    expect_two_stages_equal(torchscript("regressor", 5),
                            data("numbers") + Flags{"--epochs", "3", "--loss", "mse"},
                            "\"mean_absolute_error\"");
}
TEST_F(OwnTensors, YesOrNo) {
    expect_two_stages_equal(torchscript("yes_or_no", 3),
                            data("answers") + Flags{"--epochs", "3", "--loss", "bce"},
                            "\"accuracy\"");
}

TEST_F(OwnTensors, AdamWCosineWarmupAndClippingAsPyTorch) {
    expect_as_pytorch("regressor", 5, "numbers", "mse", "adamw", "cosine", {"--warmup-steps", "4"});
}
TEST_F(OwnTensors, AdafactorWithCosineWarmupAndClippingAsPyTorch) {
    expect_as_pytorch("regressor", 5, "numbers", "mse", "adafactor", "cosine",
                      {"--warmup-steps", "4"});
}
TEST_F(OwnTensors, SgdStepScheduleAndClippingOfSequencesAsPyTorch) {
    expect_as_pytorch("token_tagger_plain", 4, "tags", "cross_entropy", "sgd", "step",
                      {"--lr-step-size", "3", "--lr-gamma", "0.5"});
}
TEST_F(OwnTensors, AdamAndBinaryCrossEntropyAsPyTorch) {
    expect_as_pytorch("yes_or_no", 3, "answers", "bce", "adam", "constant", {});
}

// One of two is frozen; before it something is trained.
TEST_F(OwnTensors, AFrozenNormsStoredStatisticsAsPyTorch) {
    expect_as_pytorch("normed_regressor", 6, "numbers", "mse", "sgd", "constant",
                      {"--freeze", "3.*,4.*", "--frozen-norm", "eval"}, {"3", "4"});
}

TEST_F(OwnTensors, TheReferencesLinesWriteADataSet) {
    write(directory_ / "write.py",
          "import os, re, sys, numpy as np\n"
          "page = open(sys.argv[1]).read()\n"
          "exec(re.search(r'```python\\n(import json, struct.*?)```', page, re.S).group(1))\n"
          "os.makedirs(sys.argv[2])\n"
          "x = np.random.default_rng(0).random((40, 8))\n"
          "save(sys.argv[2] + '/train.safetensors', inputs=x.astype(np.float32), "
          "targets=(x.sum(1) > 4).astype(np.int64))\n");
    const Finished written =
        run({kPython, directory_ / "write.py",
             std::string(ECOPIPE_SOURCE_DIR) + "/docs/reference/data.md", directory_ / "mine"});
    ASSERT_EQ(written.code, 0) << written.err;
    train("mine", in_one_process(torchscript("regressor", 5)) + data("mine"));
    EXPECT_EQ(evaluations("mine"), "");  // there is no test split
}

TEST_F(OwnTensors, WrongLossIsRefusedInOneLine) {
    const ModelCase model = torchscript("regressor", 5);
    const Finished refused = run(Flags{"ecopipe-train", "--out", directory_ / "refused"} +
                                 in_one_process(model) + data("numbers"));
    EXPECT_EQ(refused.code, 2);
    EXPECT_NE(refused.err.find("--loss cross_entropy: expected classes as targets"),
              std::string::npos)
        << refused.err;
}

}  // namespace
}  // namespace ecopipe::test
