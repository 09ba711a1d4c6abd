// Models and data that are ordinary in PyTorch and easy to get wrong: tied weights, buffers that a
// forward replaces, values without a gradient, other precisions and devices, traces, padding, class
// weights. What trains must train as PyTorch does, and over stages to the same bytes; what cannot
// is refused in one line.
#include <algorithm>

#include "core/files.h"
#include "tests/integration/training_fixture.h"

namespace ecopipe::test {
namespace {

class OddModels : public Training {
  protected:
    void SetUp() override {
        const Finished made = run({kPython, script(), "write", directory_.path()});
        ASSERT_EQ(made.code, 0) << made.err;
    }
    [[nodiscard]] static std::string script() {
        return std::string(ECOPIPE_SOURCE_DIR) + "/tests/integration/reference/odd_models.py";
    }
    [[nodiscard]] ModelCase model(const std::string& name, int layers) const {
        const std::string path = directory_ / (name + ".pt");
        return {path, "sha256:" + sha256_hex(read(path)), layers};
    }
    [[nodiscard]] Flags on(const std::string& name, const std::string& data) const {
        return {"--model", directory_ / (name + ".pt"), "--data", "tensors:" + (directory_ / data)};
    }
    [[nodiscard]] Finished train(const Flags& flags, const std::string& out) {
        return run(Flags{"ecopipe-train", "--quiet", "--out", directory_ / out} + flags, 120);
    }
    // Trains in one process as `odd_models.py compare` does; the case's name says how.
    void train_case(const std::string& name, int samples) {
        std::vector<std::string> parts;
        std::size_t begin = 0;
        for (std::size_t colon = 0; colon != std::string::npos; begin = colon + 1) {
            colon = name.find(':', begin);
            parts.push_back(name.substr(begin, colon - begin));
        }
        Flags flags = on(parts[0], parts[1]) + Flags{"--single",
                                                     "--no-shuffle",
                                                     "--steps",
                                                     "8",
                                                     "--no-evaluation",
                                                     "--micro-batches",
                                                     "1",
                                                     "--batch",
                                                     std::to_string(samples),
                                                     "--clip-norm",
                                                     "0.5",
                                                     "--optimizer",
                                                     parts[2]};
        flags = flags + (parts[2] == "adam" ? Flags{"--lr", "0.01"}
                                            : Flags{"--lr", "0.1", "--weight-decay", "0.05"});
        if (!parts[3].empty()) flags = flags + Flags{"--class-weights", parts[3]};
        const Finished trained = train(flags, name);
        ASSERT_EQ(trained.code, 0) << name << ": " << trained.err;
    }
    void expect_as_pytorch(const std::vector<std::string>& cases, int samples) {
        for (const std::string& name : cases) train_case(name, samples);
        const Finished compared =
            run(Flags{kPython, script(), "compare", directory_.path()} + cases, 120);
        EXPECT_EQ(compared.code, 0) << compared.out << compared.err;
    }
    // `flags` in one process and over `stages`: the same bytes in every file.
    void expect_same_over_stages(const std::string& name, int layers, int stages,
                                 const std::string& schedule, bool recompute, const Flags& flags) {
        const Flags common = flags + Flags{"--steps", "5"};
        if (!exists(directory_ / (name + "-single"))) {
            const Finished alone =
                train(common + Flags{"--single", "--batch", "30", "--micro-batches", "4"},
                      name + "-single");
            ASSERT_EQ(alone.code, 0) << alone.err;
        }
        const std::string plan = directory_ / "plan.json";
        write(plan, hand_plan(model(name, layers), stages, schedule, 30, 4, recompute));
        const std::string out = name + "-" + schedule + (recompute ? "-again" : "");
        const Finished spread = train(common + Flags{"--local", "--plan", plan}, out);
        ASSERT_EQ(spread.code, 0) << spread.err;
        EXPECT_TRUE(read(directory_ / (out + "/model.safetensors")) ==
                    read(directory_ / (name + "-single/model.safetensors")))
            << out;
    }
    void expect_refused(const Flags& flags, int code, const std::string& reason) {
        const Finished refused = train(Flags{"--single", "--steps", "2"} + flags, "refused");
        EXPECT_EQ(refused.code, code) << refused.err;
        EXPECT_NE(refused.err.find(reason), std::string::npos) << refused.err;
        EXPECT_EQ(std::count(refused.err.begin(), refused.err.end(), '\n'), 1) << refused.err;
        EXPECT_EQ(refused.err.find("\\x"), std::string::npos) << refused.err;
    }
};

TEST_F(OddModels, TrainAsInPyTorch) {
    expect_as_pytorch(
        {"tied_module:features:sgd:", "tied_weight:features:adam:", "tied_inside:features:sgd:",
         "rebound_buffer:features:adam:", "written_buffer:features:sgd:",
         "rebound_twice:features:adam:", "plain:features:adam:0.25,1,3"},
        96);
    expect_as_pytorch({"tokens:padded:adam:", "tokens:padded:sgd:1,1,0,2,0.5"}, 48);
}

TEST_F(OddModels, AWeightWithTwoNamesIsOneOverStagesToo) {
    const Flags flags = on("tied_weight", "features") + Flags{"--optimizer", "adam"};
    expect_same_over_stages("tied_weight", 10, 2, "1f1b", false, flags);
    expect_same_over_stages("tied_weight", 10, 2, "zb-h1", false, flags);
}

TEST_F(OddModels, BuffersThatForwardReplacesAreTheSameOverStages) {
    for (const char* name : {"rebound_buffer", "written_buffer"}) {
        const Flags flags = on(name, "features");
        expect_same_over_stages(name, 4, 2, "1f1b", false, flags);
        expect_same_over_stages(name, 4, 2, "gpipe", true, flags);
    }
}

// A test changes nothing, whatever the layer does when it is called.
TEST_F(OddModels, AnEvaluationChangesNoBuffer) {
    const Flags flags = on("counting_buffer", "features") + Flags{"--steps", "6", "--single"};
    ASSERT_EQ(train(flags + Flags{"--batch", "16", "--no-evaluation"}, "untested").code, 0);
    write(directory_ / "features/test.safetensors",
          read(directory_ / "features/train.safetensors"));
    ASSERT_EQ(train(flags + Flags{"--batch", "16"}, "tested").code, 0);
    EXPECT_TRUE(read(directory_ / "tested/model.safetensors") ==
                read(directory_ / "untested/model.safetensors"));
}

TEST_F(OddModels, ValuesWithoutAGradientCrossACut) {
    for (const char* name : {"bool_between", "int32_between"}) {
        const Flags flags = on(name, "features");
        expect_same_over_stages(name, 6, 4, "1f1b", false, flags);
        const Finished profiled = run({"ecopipe-profile", "--model", model(name, 6).model, "--data",
                                       "tensors:" + (directory_ / "features"), "--micro-batch", "4",
                                       "--seconds", "0.01", "--out", directory_ / "profile.json"});
        EXPECT_EQ(profiled.code, 0) << profiled.err;
    }
    expect_refused(on("integers_alone", "features"), 2,
                   "layer 2 (2) hands on integers alone, so that no gradient comes back");
}

TEST_F(OddModels, PrecisionsAndDevices) {
    const Flags plain = on("plain", "features") + Flags{"--single", "--steps", "0"};
    const Finished from_gpu =
        train(on("saved_on_gpu", "features") + Flags{"--single", "--steps", "0"}, "gpu");
    ASSERT_EQ(from_gpu.code, 0) << from_gpu.err;
    ASSERT_EQ(train(plain, "cpu").code, 0);
    EXPECT_TRUE(read(directory_ / "gpu/model.safetensors") ==
                read(directory_ / "cpu/model.safetensors"));
    const Finished narrow =
        train(plain + Flags{"--init", directory_ / "weights_f64.safetensors"}, "f64");
    ASSERT_EQ(narrow.code, 0) << narrow.err;
    EXPECT_NE(narrow.err.find("4 tensors converted from F64"), std::string::npos) << narrow.err;
    EXPECT_TRUE(read(directory_ / "f64/model.safetensors") ==
                read(directory_ / "cpu/model.safetensors"));
    ASSERT_EQ(train(plain + Flags{"--init", directory_ / "weights_f16.safetensors"}, "f16").code,
              0);
    expect_refused(
        on("plain", "features") + Flags{"--init", directory_ / "weights_i64.safetensors"}, 3,
        "tensor 0.weight: expected F32 [16, 6], found I64 [16, 6]");
    expect_refused(
        on("plain", "features") + Flags{"--init", directory_ / "weights_huge.safetensors"}, 3,
        "expected numbers that float32 can hold, found larger ones");
    expect_refused(on("half", "features"), 3,
                   "expected a model in float32, found 0.weight (Half), 0.bias (Half), 2.weight "
                   "(Half) and 1 more in half precision");
    expect_refused(on("double", "features"), 2, "0.weight is in float64");
    expect_refused(on("complex", "features"), 3, "ComplexFloat is no element type");
}

TEST_F(OddModels, ATiedWeightMayStandOnceInAFile) {
    const Flags tied = on("tied_module", "features") + Flags{"--single", "--steps", "0"};
    ASSERT_EQ(train(tied, "own").code, 0);
    const Finished once =
        train(tied + Flags{"--init", directory_ / "tied_once.safetensors"}, "once");
    ASSERT_EQ(once.code, 0) << once.err;
    EXPECT_TRUE(read(directory_ / "once/model.safetensors") ==
                read(directory_ / "own/model.safetensors"));
    expect_refused(
        on("tied_module", "features") + Flags{"--init", directory_ / "tied_apart.safetensors"}, 3,
        "tensor 4.weight: expected the values of 2.weight, which is the same tensor");
}

TEST_F(OddModels, WhatCannotTrainAsMeantIsSaid) {
    expect_refused(on("frozen_all", "features"), 2,
                   "nothing to train: requires_grad is off for all of its 4 parameters");
    expect_refused(on("no_parameters", "features"), 2, "nothing to train: it has no parameters");
    expect_refused(on("own_state", "features"), 3,
                   "layer 2 assigns to its attribute calls in forward: expected a buffer");
    expect_refused(on("growing_buffer", "features"), 2,
                   "forward gives the buffer 2.seen another shape or type");
    expect_refused(on("of_tomorrow", "features"), 3,
                   "the model uses the operator aten::operator_of_tomorrow, which LibTorch ");
    const auto trace = [&](const std::string& name) {
        return train(on(name, "features") + Flags{"--single", "--steps", "1"}, name).err;
    };
    EXPECT_NE(trace("traced_evaluating")
                  .find("layer 2 (2): dropout as in evaluation mode, even when it trains"),
              std::string::npos);
    EXPECT_NE(trace("traced_evaluating").find("layer 3 (3): batch_norm as in evaluation mode"),
              std::string::npos);
    EXPECT_NE(trace("traced_training").find("as in training mode, even when it is tested"),
              std::string::npos);
    EXPECT_EQ(trace("norm_dropout_1d"), "");
}

TEST_F(OddModels, IgnoredTargetsAndClassWeightsOverStages) {
    const Flags padded = on("tokens", "padded");
    expect_same_over_stages("tokens", 4, 2, "1f1b", false, padded);
    // A whole batch whose targets are all ignored changes nothing and hurts nothing.
    const Finished silent =
        train(on("tokens", "all_padded") + Flags{"--single", "--steps", "3", "--batch", "16",
                                                 "--micro-batches", "2", "--no-shuffle"},
              "silent");
    EXPECT_EQ(silent.code, 0) << silent.err;
    EXPECT_NE(read(directory_ / "silent/metrics.jsonl").find("\"loss\":0.0"), std::string::npos);
    expect_refused(on("tokens", "far_class"), 2, "has 5 outputs, for 256 classes");
    const Finished far = train(
        on("tokens", "far_class") + Flags{"--single", "--steps", "2", "--ignore-index", "255"},
        "far");
    EXPECT_EQ(far.code, 0) << far.err;
    expect_refused(on("tokens", "padded") + Flags{"--ignore-index", "0"}, 3,
                   "expected 0 to 999999, or 0 to ignore one, found -100");
    expect_refused(on("tokens", "padded") + Flags{"--class-weights", "1,2"}, 2,
                   "--class-weights: expected one for each of 5 classes, found 2");
    expect_refused(on("plain", "features") + Flags{"--loss", "mse", "--class-weights", "1,2,3"}, 2,
                   "--class-weights goes with --loss cross_entropy");
    const Finished resumed = train(
        on("tokens", "far_class") + Flags{"--single", "--steps", "3", "--resume", "--ignore-index",
                                          "255", "--class-weights", "balanced"},
        "far");
    EXPECT_EQ(resumed.code, 2) << resumed.err;
    EXPECT_NE(resumed.err.find("--resume: --class-weights was null"), std::string::npos)
        << resumed.err;
}

TEST_F(OddModels, BalancedClassWeights) {
    const Flags flags = on("plain", "features");
    expect_same_over_stages("plain", 3, 2, "1f1b", false,
                            flags + Flags{"--class-weights", "balanced"});
    EXPECT_NE(read(directory_ / "plain-single/run.json").find("\"class-weights\""),
              std::string::npos);
}

}  // namespace
}  // namespace ecopipe::test
