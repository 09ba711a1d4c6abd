// What devices take for tensors is what their plan foresaw, use by use.
#include <nlohmann/json.hpp>

#include "tests/integration/training_fixture.h"

namespace ecopipe::test {
namespace {

using Json = nlohmann::json;

class Memory : public Training {
  protected:
    // One run with a plan by hand over two devices of a cluster whose profile is measured.
    void expect_as_predicted(const ModelCase& model, const std::string& data,
                             const std::string& schedule, bool segments = false) {
        const std::string name = model.id + schedule + (segments ? "-segments" : "");
        const std::string plan = hand_plan(model, 2, schedule, 32, 4);
        write(directory_ / (name + ".json"), segments ? with_segments(plan) : plan);
        write(directory_ / "cluster.yaml",
              "name: home\nportal: d0\ndevices:\n  - {name: d0, memory_mib: 4096}\n"
              "  - {name: d1, memory_mib: 4096}\ndefault_link: {mbps: 1000, latency_ms: 0.1}\n");
        expect_trains({"--local", "--cluster", directory_ / "cluster.yaml", "--plan",
                       directory_ / (name + ".json"), "--model", model.model, "--data", data,
                       "--steps", "3", "--batch", "32", "--micro-batches", "4", "--replicas", "off",
                       "--out", directory_ / name});
        const Json measured = Json::parse(read(directory_ / (name + "/run.json")))["memory"];
        const Json predicted = Json::parse(read(directory_ / (name + "/plan.json")))["memory"];
        ASSERT_EQ(measured.size(), 2U);
        for (const auto& [device, memory] : measured.items()) {
            SCOPED_TRACE(name + " " + device + ": " + memory.dump() + ", predicted " +
                         predicted[device].dump());
            const double peak = memory["peak_bytes"];
            double uses = 0;
            for (const auto& [use, bytes] : memory["uses"].items()) uses += bytes.get<double>();
            EXPECT_EQ(uses, peak);
            // A tensor more or less may be on its way.
            const double tensor = 32.0 / 4 * 65536;
            EXPECT_LE(peak, 1.03 * memory["predicted_peak_bytes"].get<double>() + tensor);
            EXPECT_GE(peak, 0.9 * memory["predicted_peak_bytes"].get<double>() - tensor);
            for (const char* use : {"weights", "moments"})
                EXPECT_NEAR(memory["uses"][use].get<double>(), predicted[device].value(use, 0.0),
                            0.02 * peak)
                    << use;
        }
    }
};

TEST_F(Memory, IsAsPredictedUnderEverySchedule) {
    const ModelCase fashion{"fashion_cnn", "fashion_cnn", 11};
    const ModelCase plain{"plain_cnn", "plain_cnn", 11};
    expect_as_predicted(fashion, "synthetic:1x28x28:10:128", "gpipe");
    expect_as_predicted(plain, "synthetic:3x16x16:10:128", "1f1b");
    expect_as_predicted(plain, "synthetic:3x16x16:10:128", "1f1b", true);
    expect_as_predicted(plain, "synthetic:3x16x16:10:128", "zb-h1");
}

}  // namespace
}  // namespace ecopipe::test
