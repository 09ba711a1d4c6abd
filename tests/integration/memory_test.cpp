// What devices take for tensors is what their plan foresaw, use by use.
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "core/random.h"
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
            // A tensor more or less may be on its way, and while a device is held up by others on
            // this machine all that its neighbour has in flight waits for it.
            const double tensor = 32.0 / 4 * 65536;
            EXPECT_LE(peak, 1.03 * memory["predicted_peak_bytes"].get<double>() + 3 * tensor);
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
    // Most of it is weights and moments: their way to the portal at the end is none of it.
    expect_as_predicted({"mobilenet_v2", "mobilenet_v2", 22}, "synthetic:3x32x32:10:128", "gpipe",
                        true);
}

// Steps in a run's metrics, each with the tensors' peak on each device, and its events.
struct Steps {
    std::vector<std::map<std::string, double>> peaks;
    std::vector<Json> events;
};
Steps steps_of(const std::string& out) {
    Steps steps;
    std::istringstream lines(exists(out + "/metrics.jsonl") ? read(out + "/metrics.jsonl") : "");
    for (std::string line; std::getline(lines, line) && line.ends_with('}');) {
        const Json json = Json::parse(line);
        if (!json.contains("step")) continue;
        steps.peaks.emplace_back();
        for (const Json& stage : json["stages"])
            steps.peaks.back()[stage["device"]] = stage["peak_bytes"];
        for (const Json& event : json.value("event", Json::array())) steps.events.push_back(event);
    }
    return steps;
}

// Somebody else takes the memory and gives it back, every few steps; at last there is less than a
// device's layers can do with, and they move.
TEST_F(Memory, ABudgetThatMovesIsKeptAndChangesNoByte) {
    const ModelCase plain{"plain_cnn", "plain_cnn", 11};
    const int count = full() ? 200 : 36;
    const auto last_judged = static_cast<std::size_t>(count - 12);
    const Flags flags{"--data",  "synthetic:3x16x16:10:64", "--batch", "8", "--micro-batches", "4",
                      "--steps", std::to_string(count)};
    const std::string reference = single(plain, flags, "single");
    write(directory_ / "cluster.yaml",
          "name: home\nportal: d0\ndevices:\n  - {name: d0, memory_mib: 4096}\n"
          "  - {name: d1, memory_mib: 4096}\ndefault_link: {mbps: 1000, latency_ms: 0.1}\n");
    const std::string out = directory_ / "adaptive";
    std::filesystem::create_directory(directory_ / "budgets");
    Process train(Flags{"ecopipe-train", "--local", "--cluster", directory_ / "cluster.yaml",
                        "--recompute", "adaptive", "--memory-budgets", directory_ / "budgets",
                        "--schedule", "1f1b", "--replicas", "off", "--model", plain.model,
                        "--no-evaluation", "--quiet", "--out", out} +
                  flags);
    std::map<std::string, std::vector<std::pair<std::size_t, double>>> budgets;  // since a step
    Json frontiers;
    Rng rng(4);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(240);
    for (std::size_t due = 1; train.running();) {
        ASSERT_LT(std::chrono::steady_clock::now(), deadline) << train.err();
        std::this_thread::sleep_for(std::chrono::milliseconds(40));
        const std::size_t done = steps_of(out).peaks.size();
        if (done < due) continue;
        due = done + 4 + rng.below(4);
        if (frontiers.is_null()) frontiers = Json::parse(read(out + "/plan.json"))["frontiers"];
        for (const auto& [device, points] : frontiers.items()) {
            const bool too_little = done >= last_judged && device == "d0";
            const double bytes =
                too_little ? 0.7 * points.back()["peak_bytes"].get<double>()
                           : rng.uniform(1.2 * points.back()["peak_bytes"].get<double>(),
                                         1.1 * points.front()["peak_bytes"].get<double>());
            write(directory_ / ("new-" + device), std::to_string(bytes / 1048576) + "\n");
            std::filesystem::rename(directory_ / ("new-" + device),
                                    directory_ / ("budgets/" + device));
            budgets[device].emplace_back(done, bytes);
        }
    }
    const Finished finished = train.wait(10);
    ASSERT_EQ(finished.code, 0) << finished.err;
    EXPECT_TRUE(read(out + "/model.safetensors") == reference);
    const Steps steps = steps_of(out);
    ASSERT_EQ(steps.peaks.size(), static_cast<std::size_t>(count));
    int judged = 0;
    for (const auto& [device, since] : budgets)
        for (std::size_t k = since.front().first + 3; k < last_judged; ++k) {
            // That of any change that may have come before the step began, and of the last that
            // surely had: one step more is under way, or done and not yet written.
            double allowed = 0;
            for (auto change = since.rbegin(); change != since.rend(); ++change) {
                if (change->first > k) continue;
                allowed = std::max(allowed, change->second);
                if (change->first + 2 <= k) break;
            }
            EXPECT_LE(steps.peaks[k].at(device), allowed) << device << " in step " << k + 1;
            ++judged;
        }
    EXPECT_GT(judged, count / 2);
    const auto moves = std::count_if(steps.events.begin(), steps.events.end(), [](const Json& e) {
        return e["kind"] == "memory" && e["needed_bytes"] <= e["budget_bytes"];
    });
    EXPECT_GE(moves, 3);
    EXPECT_TRUE(std::any_of(steps.events.begin(), steps.events.end(), [](const Json& e) {
        return e["kind"] == "moved" && e["cause"].get<std::string>().starts_with("d0 has memory");
    }));
}

}  // namespace
}  // namespace ecopipe::test
