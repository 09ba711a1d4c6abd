// The reference itself is right: plain PyTorch computes the same losses from the same initial
// weights.
#include "tests/integration/training_fixture.h"

namespace ecopipe::test {
namespace {

struct ReferenceCase {
    ModelCase model;
    std::string optimizer = "sgd";
    std::string rate = "0.02";
    std::string decay = "0.001";
    std::string steps = "20";
    std::string tokens{};  // a directory of tensors instead of pictures
};

class Reference : public Training {
  protected:
    void expect_same(const ReferenceCase& wanted) {
        const std::string limit = wanted.tokens.empty() ? "150" : "90";
        const Flags flags{"--data",
                          wanted.tokens.empty() ? "fashion-mnist" : "tensors:" + wanted.tokens,
                          "--data-limit",
                          limit,
                          "--no-shuffle",
                          "--batch",
                          "32",
                          "--micro-batches",
                          "4",
                          "--weight-decay",
                          wanted.decay,
                          "--optimizer",
                          wanted.optimizer,
                          "--lr",
                          wanted.rate};
        static_cast<void>(single(wanted.model, flags + Flags{"--steps", "0"}, "start"));
        static_cast<void>(single(wanted.model, flags + Flags{"--steps", wanted.steps}, "trained"));
        Flags reference{
            kPython,
            std::string(ECOPIPE_SOURCE_DIR) + "/tests/integration/reference/reference.py",
            wanted.model.model,
            directory_ / "start/model.safetensors",
            directory_ / "trained",
            wanted.optimizer,
            wanted.rate,
            wanted.decay,
            wanted.steps,
            limit};
        if (!wanted.tokens.empty()) reference.push_back(wanted.tokens + "/train.safetensors");
        const Finished compared = run(reference, 280);
        EXPECT_EQ(compared.code, 0) << compared.out << compared.err;
    }
    // Names too, or the module in Python could not load the weights; and draws.
    void expect_same_zoo(const std::string& name, const std::string& rate = "0.02",
                         const std::string& steps = "6") {
        expect_same({.model = {name, name}, .rate = rate, .decay = "0", .steps = steps});
    }
};

TEST_F(Reference, Lenet5Sgd) { expect_same({.model = {"lenet5", "lenet5"}}); }
TEST_F(Reference, Lenet5Adam) {
    expect_same({.model = {"lenet5", "lenet5"}, .optimizer = "adam", .rate = "0.001"});
}
// Steps so small and few that what is rounded otherwise does not grow: see Identity.EfficientNet.
TEST_F(Reference, EfficientNet) { expect_same_zoo("efficientnet_b0", "0.00001", "2"); }
TEST_F(Reference, ShuffleNetV2) { expect_same_zoo("shufflenet_v2_x1_0"); }
TEST_F(Reference, ShuffleNetV1) { expect_same_zoo("shufflenet_v1_g3"); }
TEST_F(Reference, MobileBert) {
    const Finished made =
        run({kPython, std::string(ECOPIPE_SOURCE_DIR) + "/tests/integration/reference/tensors.py",
             directory_.path()});
    ASSERT_EQ(made.code, 0) << made.err;
    expect_same({.model = {"mobilebert", "mobilebert"},
                 .rate = "0.5",
                 .decay = "0",
                 .steps = "2",
                 .tokens = directory_ / "text"});
}
TEST_F(Reference, StridedTorchScriptSgd) { expect_same({.model = torchscript("strided", 12)}); }
TEST_F(Reference, ActivationsTorchScriptAdam) {
    expect_same({.model = torchscript("activations", 8), .optimizer = "adam", .rate = "0.001"});
}

TEST_F(Reference, ATrainedTorchScriptFileLoadsBackIntoPython) {
    const ModelCase model = torchscript("norm_dropout", 14);
    static_cast<void>(single(
        model, {"--data", "fashion-mnist", "--data-limit", "100", "--steps", "3"}, "trained"));
    const std::string script =
        "import sys, json, struct, torch, numpy as np\n"
        "m = torch.jit.load(sys.argv[1]); raw = open(sys.argv[2], 'rb').read()\n"
        "n = struct.unpack('<Q', raw[:8])[0]; header = json.loads(raw[8:8 + n])\n"
        "state = m.state_dict()\n"
        "assert set(header) == set(state), set(header) ^ set(state)\n"
        "for name, e in header.items():\n"
        "    b, c = e['data_offsets']\n"
        "    assert raw[8 + n + b:8 + n + c] == state[name].contiguous().numpy().tobytes(), name\n";
    write(directory_ / "check.py", script);
    const Finished checked = run({kPython, directory_ / "check.py", directory_ / "trained/model.pt",
                                  directory_ / "trained/model.safetensors"});
    EXPECT_EQ(checked.code, 0) << checked.err;
}

}  // namespace
}  // namespace ecopipe::test
