// The reference itself is right: plain PyTorch computes the same losses from the same initial
// weights.
#include "tests/integration/training_fixture.h"

namespace ecopipe::test {
namespace {

class Reference : public Training {
  protected:
    void expect_same_losses(const ModelCase& model, const std::string& optimizer) {
        std::vector<std::string> flags{"--data",
                                       "fashion-mnist",
                                       "--data-limit",
                                       "150",
                                       "--no-shuffle",
                                       "--batch",
                                       "32",
                                       "--micro-batches",
                                       "4",
                                       "--weight-decay",
                                       "0.001",
                                       "--optimizer",
                                       optimizer,
                                       "--lr",
                                       optimizer == "adam" ? "0.001" : "0.02"};
        auto start = flags;
        start.insert(start.end(), {"--steps", "0"});
        static_cast<void>(single(model, start, "start-" + optimizer));
        flags.insert(flags.end(), {"--steps", "20"});
        static_cast<void>(single(model, flags, optimizer));
        const Finished compared =
            run({kPython, std::string(ECOPIPE_SOURCE_DIR) + "/tests/integration/reference.py",
                 model.model, directory_ / ("start-" + optimizer + "/model.safetensors"),
                 directory_ / (optimizer + "/metrics.jsonl"), optimizer, "20", "32", "4", "150"},
                280);
        EXPECT_EQ(compared.code, 0) << compared.out << compared.err;
    }
};

TEST_F(Reference, Lenet5Sgd) { expect_same_losses({"lenet5", "lenet5", 12}, "sgd"); }
TEST_F(Reference, Lenet5Adam) { expect_same_losses({"lenet5", "lenet5", 12}, "adam"); }
TEST_F(Reference, StridedTorchScriptSgd) { expect_same_losses(torchscript("strided", 12), "sgd"); }
TEST_F(Reference, ActivationsTorchScriptAdam) {
    expect_same_losses(torchscript("activations", 8), "adam");
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
