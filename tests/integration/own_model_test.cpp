// Models of torchvision, exported, fine-tuned with a frozen body on a folder of pictures by three
// devices, and taken back.
#include <algorithm>
#include <map>
#include <sstream>

#include "core/files.h"
#include "core/strict_json.h"
#include "stage_runtime/data/safetensors.h"
#include "tests/integration/training_fixture.h"

namespace ecopipe::test {
namespace {

std::string source(const std::string& path) { return std::string(ECOPIPE_SOURCE_DIR) + "/" + path; }

class OwnModel : public Training {
  protected:
    void SetUp() override {
        const Finished made = run({kPython, source("examples/own_model/make_pictures.py"),
                                   directory_ / "pictures", "96", "20"});
        ASSERT_EQ(made.code, 0) << made.err;
    }
    ModelCase exported(const std::string& name, int layers) {
        const std::string path = directory_ / (name + ".pt");
        const Finished made = run({kPython, source("scripts/export_sequential.py"), name,
                                   "--num-classes", "10", "--input", "3x32x32", "--out", path});
        EXPECT_EQ(made.code, 0) << made.err;
        return {path, "sha256:" + sha256_hex(read(path)), layers};
    }
    void train(const std::string& name, Flags flags) {
        flags.insert(flags.begin(),
                     {"ecopipe-train", "--quiet", "--out", directory_ / name, "--data",
                      "folder:" + (directory_ / "pictures"), "--resize", "32x32", "--normalize",
                      "0.485,0.456,0.406/0.229,0.224,0.225", "--steps", "6", "--lr", "0.01"});
        const Finished finished = run(flags, 240);
        ASSERT_EQ(finished.code, 0) << finished.err;
    }
    // Three stages; the last begins with the model's first trainable layer when `freeze` leaves
    // only the head.
    Flags in_three_stages(const ModelCase& model, int cut_a, int cut_b) {
        const std::string path = directory_ / "plan.json";
        std::ostringstream plan;
        plan << R"({"schema":"ecopipe.plan/1","model":")" << model.id
             << R"(","batch":24,"micro_batches":3,"schedule":"1f1b","stages":[)"
             << R"({"device":"d0","first_layer":0,"last_layer":)" << cut_a - 1
             << R"(,"in_flight":3,"recompute":false},{"device":"d1","first_layer":)" << cut_a
             << R"(,"last_layer":)" << cut_b - 1
             << R"(,"in_flight":3,"recompute":false},{"device":"d2","first_layer":)" << cut_b
             << R"(,"last_layer":)" << model.layers - 1 << R"(,"in_flight":1,"recompute":false}]})";
        write(path, plan.str());
        return {"--local", "--plan", path, "--model", model.model, "--replicas", "off"};
    }
    // Bytes that a device has sent to other devices, over all steps.
    [[nodiscard]] std::uint64_t sent(const std::string& name, const std::string& device) const {
        std::istringstream lines(read(directory_ / (name + "/metrics.jsonl")));
        std::uint64_t bytes = 0;
        for (std::string text; std::getline(lines, text);) {
            const Json line = Json::parse(text);
            if (!line.contains("stages")) continue;
            for (const Json& stage : line["stages"])
                if (stage["device"] == device) bytes += stage["sent_bytes"].get<std::uint64_t>();
        }
        return bytes;
    }
    void expect_fine_tunes(const std::string& name, int layers, const std::string& freeze,
                           int cut_a, int head, std::uint64_t features) {
        const ModelCase model = exported(name, layers);
        train("single", {"--single", "--model", model.model, "--batch", "24", "--micro-batches",
                         "3", "--freeze", freeze});
        Flags frozen = in_three_stages(model, cut_a, head);
        const Flags open = frozen;
        frozen.insert(frozen.end(), {"--freeze", freeze});
        train("frozen", frozen);
        EXPECT_TRUE(read(directory_ / "frozen/model.safetensors") ==
                    read(directory_ / "single/model.safetensors"));
        // Nothing comes back over the cut left of the first trainable layer.
        constexpr std::uint64_t kSamples = 6 * 24;
        EXPECT_EQ(sent("frozen", "d2"), 0U);
        EXPECT_EQ(sent("frozen", "d1"), kSamples * features * sizeof(float));
        // The measure shows what comes back otherwise.
        train("open", open);
        EXPECT_EQ(sent("open", "d2"), kSamples * features * sizeof(float));
        EXPECT_GT(sent("open", "d1"), sent("frozen", "d1"));
        const Finished back =
            run({kPython, source("scripts/export_sequential.py"), name, "--num-classes", "10",
                 "--input", "3x32x32", "--back", directory_ / "frozen/model.safetensors", "--out",
                 directory_ / "back.pth"});
        EXPECT_EQ(back.code, 0) << back.err;
        expect_torchvision_equal(name);
    }
    // The bytes of each tensor of a run's model.
    [[nodiscard]] std::map<std::string, std::string> tensors_of(const std::string& name) const {
        std::map<std::string, std::string> all;
        const auto file = read_safetensors(directory_ / (name + "/model.safetensors"));
        EXPECT_TRUE(file) << file.error().message;
        for (const NamedTensor& entry : *file)
            all[entry.name].assign(reinterpret_cast<const char*>(entry.tensor.data()),
                                   entry.tensor.bytes());
        return all;
    }
    // torchvision's own module with the trained state dict, beside the trained TorchScript file.
    void expect_torchvision_equal(const std::string& name) {
        write(directory_ / "check.py",
              "import sys, torch, torchvision\n"
              "model = getattr(torchvision.models, sys.argv[1])(num_classes=10).eval()\n"
              "model.load_state_dict(torch.load(sys.argv[2]))\n"
              "trained = torch.jit.load(sys.argv[3]).eval()\n"
              "x = torch.rand(5, 3, 32, 32)\n"
              "error = (model(x) - trained(x)).abs().max() / model(x).abs().max()\n"
              "assert error <= 1e-5, error\n");
        const Finished checked = run({kPython, directory_ / "check.py", name,
                                      directory_ / "back.pth", directory_ / "frozen/model.pt"});
        EXPECT_EQ(checked.code, 0) << checked.err;
    }
};

TEST_F(OwnModel, Resnet18WithAFrozenBody) {
    expect_fine_tunes("resnet18", 15, "conv1.*,bn1.*,layer*", 6, 12, 512);
}
TEST_F(OwnModel, MobileNetV2WithAFrozenBody) {
    expect_fine_tunes("mobilenet_v2", 23, "features.*", 8, 19, 1280);
}

// TorchScript's and the zoo's. Micro-batches of two samples make statistics of their own useless.
TEST_F(OwnModel, AFrozenBodyMayUseItsStoredStatistics) {
    for (const ModelCase& model :
         {exported("mobilenet_v2", 23), ModelCase{"mobilenet_v2", "mobilenet_v2", 22}}) {
        const std::string& id = model.id;
        train("start" + id,
              {"--single", "--model", model.model, "--batch", "24", "--micro-batches", "3"});
        const Flags frozen{"--freeze",      "features.*",
                           "--frozen-norm", "eval",
                           "--init",        directory_ / ("start" + id + "/model.safetensors")};
        train("whole" + id,
              Flags{"--single", "--model", model.model, "--batch", "24", "--micro-batches", "3"} +
                  frozen);
        train("stages" + id, in_three_stages(model, 8, 18) + frozen);
        EXPECT_TRUE(read(directory_ / ("whole" + id + "/model.safetensors")) ==
                    read(directory_ / ("stages" + id + "/model.safetensors")));
        const auto started = tensors_of("start" + id);
        for (const auto& [name, bytes] : tensors_of("whole" + id))
            EXPECT_EQ(bytes == started.at(name), !name.starts_with("classifier.")) << name;
    }
}

// A head for other classes starts afresh; the body is that of the file.
TEST_F(OwnModel, ABodyIsTakenFromAFileAndTheHeadIsNot) {
    const auto start_from = [&](const std::string& except) {
        return run({"ecopipe-train", "--quiet", "--single", "--model", "mobilenet_v2", "--data",
                    "synthetic:3x32x32:10:40", "--steps", "0", "--init",
                    directory_ / "body.safetensors", "--init-except", except, "--out",
                    directory_ / ("from-" + std::to_string(except.size()))});
    };
    const Finished begun = run({"ecopipe-train", "--quiet", "--single", "--model", "mobilenet_v2",
                                "--data", "synthetic:3x32x32:7:40", "--steps", "0", "--seed", "9",
                                "--out", directory_ / "seven"});
    ASSERT_EQ(begun.code, 0) << begun.err;
    write(directory_ / "body.safetensors", read(directory_ / "seven/model.safetensors"));
    const Finished taken = start_from("classifier.*");
    EXPECT_EQ(taken.code, 0) << taken.err;
    const Finished whole = start_from("features.0.*");
    EXPECT_EQ(whole.code, 3);
    EXPECT_NE(whole.err.find("classifier.1.weight: expected F32 [10, 1280], found F32 [7, 1280]"),
              std::string::npos)
        << whole.err;
    const Finished misspelt = start_from("klassifier.*");
    EXPECT_EQ(misspelt.code, 2);
    EXPECT_NE(misspelt.err.find("--init-except: klassifier.* is no tensor"), std::string::npos)
        << misspelt.err;
}

// A module that stands twice in a Sequential, and weights other than those of the model.pt beside
// them, as best.safetensors may be.
TEST_F(OwnModel, ASequentialOfOnesOwnGoesThereAndBack) {
    write(directory_ / "own.py",
          "from torch import nn\n"
          "def twice():\n"
          "    relu = nn.ReLU()\n"
          "    return nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu,\n"
          "                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))\n"
          "def shared():\n"
          "    layer = nn.Linear(8, 8)\n"
          "    return nn.Sequential(layer, nn.ReLU(), layer)\n"
          "def unfit():\n"
          "    return nn.Linear(8, 8)\n");
    const auto script = [&](Flags words) {
        words.insert(words.begin(), {kPython, source("scripts/export_sequential.py")});
        return run(words);
    };
    const std::string model = directory_ / "own.pt";
    const std::string twice = directory_ / "own.py:twice";
    const Finished made = script({twice, "--input", "3x32x32", "--out", model});
    ASSERT_EQ(made.code, 0) << made.err;
    train("first", {"--single", "--model", model, "--seed", "1"});
    train("last", {"--single", "--model", model, "--seed", "2"});
    write(directory_ / "last/best.safetensors", read(directory_ / "first/model.safetensors"));
    for (const char* name : {"model.safetensors", "best.safetensors"}) {
        const Finished back =
            script({twice, "--input", "3x32x32", "--back",
                    directory_ / (std::string("last/") + name), "--out", directory_ / "own.pth"});
        EXPECT_EQ(back.code, 0) << name << ": " << back.err;
    }
    const std::vector<std::pair<Flags, std::string>> refused{
        {{twice, "--input", "8"}, "takes no sample of shape [8]"},
        {{twice, "--input", "3xx"}, "--input: expected a sample's shape"},
        {{twice, "--tokens", "8"}, "--tokens: expected LENGTH,VOCABULARY"},
        {{twice, "--except", "0.*"}, "--except goes with --state-dict"},
        {{twice, "--state-dict", "/nowhere.pth"}, "/nowhere.pth: cannot be read"},
        {{twice, "--back", "/nowhere.safetensors"}, "/nowhere.safetensors: No such file"},
        {{directory_ / "own.py:shared", "--input", "8"}, "two layers share a parameter"},
        {{directory_ / "own.py:unfit", "--input", "8"}, "expected an nn.Sequential, found Linear"},
        {{directory_ / "own.py:absent"}, "no attribute 'absent'"},
        {{"resnet"}, "is no model of torchvision"},
    };
    for (const auto& [words, line] : refused) {
        Flags with_out = words;
        with_out.insert(with_out.end(), {"--out", directory_ / "refused.pt"});
        const Finished finished = script(with_out);
        EXPECT_EQ(finished.code, 1) << line;
        EXPECT_NE(finished.err.find(line), std::string::npos) << finished.err;
        EXPECT_EQ(std::count(finished.err.begin(), finished.err.end(), '\n'), 1) << finished.err;
    }
    // A class more than there are outputs.
    const Finished few = run({"ecopipe-train", "--quiet", "--single", "--model", model, "--data",
                              "synthetic:3x32x32:11:40", "--out", directory_ / "few"});
    EXPECT_EQ(few.code, 2);
    EXPECT_NE(few.err.find("has 10 outputs, for 11 classes"), std::string::npos) << few.err;
}

}  // namespace
}  // namespace ecopipe::test
